"""What is inside a GGUF file, by type: how much of it, and what a kernel gets of it."""

from __future__ import annotations

from paceline.formats.contents import StoredKind, summed
from paceline.formats.gguf.header import TensorInfo
from paceline.formats.gguf.reader import Reader


def describe(reader: Reader) -> list[StoredKind]:
    """The types of a file, the one with the most bytes first; nothing but the header is read."""
    return summed(_stored(tensor) for tensor in reader)


def _stored(tensor: TensorInfo) -> StoredKind:
    kind = tensor.kind
    return StoredKind(kind.name, 1, tensor.num_weights, tensor.num_bytes, kind.becomes, kind.is_exact)
