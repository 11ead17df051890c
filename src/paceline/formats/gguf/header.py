"""The header of one GGUF file, versions 2 and 3, little-endian: metadata and the table of tensors.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Every count, length and offset is checked against
the file's size before anything is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Final

from paceline.errors import ModelError
from paceline.formats.gguf.cursor import Cursor
from paceline.formats.gguf.kinds import KINDS, REFUSED, Kind
from paceline.formats.gguf.metadata import Metadata, num_keys, read_metadata

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
MAX_TENSORS: Final = 1 << 16  # the largest models have some thousands
MAX_NAME_BYTES: Final = 255  # ggml's own limit is 63
MAX_DIMENSIONS: Final = 4
MAX_EXTENT: Final = 2**31 - 1  # of a dimension
MIN_ALIGNMENT, MAX_ALIGNMENT = 8, 1 << 16
_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8  # the least that an entry of the table takes


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies in its file."""

    name: str
    shape: tuple[int, ...]  # as torch has it: the last runs fastest
    kind: Kind
    begin: int  # byte in the file
    num_bytes: int

    @property
    def num_weights(self) -> int:
        """How many weights it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says of itself, and its tensors in the order of their bytes."""

    metadata: Metadata
    tensors: tuple[TensorInfo, ...]


def read_header(view: memoryview, name: str) -> Header:
    """The header of a file whose bytes these are.

    Raises:
        ModelError: it is no such file, or it is damaged: what is wrong, what was found, what is allowed.
    """
    cursor = Cursor(view, name)
    _check_magic(cursor)
    num_tensors = cursor.count("tensors", _TENSOR_BYTES, MAX_TENSORS)
    metadata = read_metadata(cursor, num_keys(cursor))
    alignment = metadata.integer("general.alignment", 32, MIN_ALIGNMENT, MAX_ALIGNMENT)
    if alignment & (alignment - 1):
        raise ModelError(f"{name}: general.alignment is {alignment}; allowed: a power of two")
    entries = [_entry(cursor) for _ in range(num_tensors)]
    data = -(-cursor.at // alignment) * alignment
    tensors = sorted((_placed(entry, data, alignment, cursor) for entry in entries), key=lambda t: t.begin)
    _check_places(tensors, name)
    return Header(metadata, tuple(tensors))


def _check_magic(cursor: Cursor) -> None:
    cursor.need(len(MAGIC) + 4, "the magic word with the version")
    magic = bytes(cursor.view[: len(MAGIC)])
    if magic != MAGIC:
        raise ModelError(f"{cursor.name} begins with {magic!r}; allowed: {MAGIC!r}, a GGUF file")
    cursor.at = len(MAGIC)
    version = cursor.u32("the version")
    if version not in VERSIONS:
        is_swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        words = "big-endian" if is_swapped else f"of version {version}"
        raise ModelError(f"{cursor.name} is {words}; allowed: little-endian, version 2 or 3")


def _entry(cursor: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, number of the type and offset from the data's begin."""
    name = cursor.text("a tensor's name", MAX_NAME_BYTES)
    num_dimensions = cursor.u32(f"the number of dimensions of {name!r}")
    if not 1 <= num_dimensions <= MAX_DIMENSIONS:
        raise ModelError(
            f"{cursor.name}: the tensor {name!r} has {num_dimensions} dimensions; allowed: 1 to {MAX_DIMENSIONS}"
        )
    shape = [cursor.u64(f"a dimension of {name!r}") for _ in range(num_dimensions)]
    if not all(1 <= extent <= MAX_EXTENT for extent in shape):
        raise ModelError(f"{cursor.name}: the tensor {name!r} is {shape}; allowed: dimensions of 1 to {MAX_EXTENT}")
    return name, tuple(shape[::-1]), cursor.u32(f"the type of {name!r}"), cursor.u64(f"the offset of {name!r}")


def _placed(entry: tuple[str, tuple[int, ...], int, int], data: int, alignment: int, cursor: Cursor) -> TensorInfo:
    """The tensor of an entry, which must lie within the file.

    Raises:
        ModelError: it does not, or is of a type that is refused.
    """
    name, shape, number, offset = entry
    words = f"{cursor.name}: the tensor {name!r}"
    kind = KINDS.get(number)
    if kind is None:
        reason = REFUSED.get(number, "there is no such type")
        allowed = ", ".join(k.name for k in KINDS.values())
        raise ModelError(f"{words} is of type {number}: {reason}; allowed: {allowed}")
    if shape[-1] % kind.weights:
        raise ModelError(
            f"{words} has rows of {shape[-1]} weights; allowed for {kind.name}: multiples of {kind.weights}"
        )
    if offset % alignment:
        raise ModelError(f"{words} begins at offset {offset}; allowed: multiples of {alignment}")
    num_bytes = prod(shape) // kind.weights * kind.num_bytes
    if data + offset + num_bytes > len(cursor.view):
        raise ModelError(
            f"{words} ends at byte {data + offset + num_bytes}; allowed: {len(cursor.view)}, the file's size"
        )
    return TensorInfo(name, shape, kind, data + offset, num_bytes)


def _check_places(tensors: list[TensorInfo], name: str) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise ModelError(f"{name}: the tensor {tensor.name!r} occurs twice; allowed: once")
        names.add(tensor.name)
    for one, other in pairwise(tensors):
        if one.begin + one.num_bytes > other.begin:
            raise ModelError(f"{name}: the tensors {one.name!r} and {other.name!r} overlap; allowed: none that do")
