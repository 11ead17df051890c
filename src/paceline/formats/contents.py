"""What is inside a file or folder of weights, by the kinds in which they are stored: data for a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class StoredKind:
    """Tensors that are stored alike, and what becomes of them; of a single tensor, or a sum."""

    name: str  # in the file's own words: "Q4_K", "GPTQ int4", "BF16"
    tensors: int
    weights: int
    num_bytes: int  # in the file, scales and all
    becomes: str  # a `BlockType`'s name, or that of floats
    is_exact: bool

    @property
    def bits_per_weight(self) -> float:
        """Bits that the file spends on each weight."""
        return 8 * self.num_bytes / self.weights


def summed(kinds: Iterable[StoredKind]) -> list[StoredKind]:
    """Those of one name that become the same added up, the largest first."""
    sums: dict[tuple[str, str, bool], StoredKind] = {}
    for kind in kinds:
        key = kind.name, kind.becomes, kind.is_exact
        sums[key] = _added(sums[key], kind) if key in sums else kind
    return sorted(sums.values(), key=lambda kind: -kind.num_bytes)


def _added(a: StoredKind, b: StoredKind) -> StoredKind:
    return replace(a, tensors=a.tensors + b.tensors, weights=a.weights + b.weights, num_bytes=a.num_bytes + b.num_bytes)
