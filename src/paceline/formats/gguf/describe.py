"""What is inside a GGUF file, by type: how much of it, and what a kernel gets of it."""

from __future__ import annotations

from dataclasses import dataclass

from paceline.formats.gguf.header import TensorInfo
from paceline.formats.gguf.kinds import Kind
from paceline.formats.gguf.reader import Reader


@dataclass(frozen=True)
class TypeShare:
    """All tensors of one type."""

    name: str
    num_tensors: int
    num_weights: int
    num_bytes: int
    share: float  # of all weights, 0 to 1
    becomes: str  # the blocks or floats that are computed with
    is_exact: bool  # these have the file's own values

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes in the file."""
        return 8 * self.num_bytes / self.num_weights


def describe(reader: Reader) -> list[TypeShare]:
    """The types of a file, the one with the most weights first; nothing but the header is read."""
    by_kind: dict[Kind, list[TensorInfo]] = {}
    for tensor in reader:
        by_kind.setdefault(tensor.kind, []).append(tensor)
    total = sum(tensor.num_weights for tensor in reader)
    shares = [_share(kind, tensors, total) for kind, tensors in by_kind.items()]
    return sorted(shares, key=lambda share: (-share.num_weights, share.name))


def _share(kind: Kind, tensors: list[TensorInfo], total: int) -> TypeShare:
    weights = sum(tensor.num_weights for tensor in tensors)
    return TypeShare(
        name=kind.name,
        num_tensors=len(tensors),
        num_weights=weights,
        num_bytes=sum(tensor.num_bytes for tensor in tensors),
        share=weights / total,
        becomes=kind.becomes,
        is_exact=kind.is_exact,
    )
