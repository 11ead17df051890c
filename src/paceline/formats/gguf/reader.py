"""GGUF files on disk, mapped, and the shards of which one model may consist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from paceline.errors import ModelError
from paceline.formats.gguf.header import MAGIC, Header, TensorInfo, read_header
from paceline.formats.gguf.metadata import Metadata
from paceline.native.library import library

MAX_SHARDS: Final = 999
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class MappedFile:
    """A file in memory as far as it is read; nothing is copied."""

    data: torch.Tensor  # (bytes,) uint8
    header: Header

    def bytes_of(self, tensor: TensorInfo) -> torch.Tensor:
        """A tensor's bytes (n,) uint8, where they lie."""
        return self.data[tensor.begin : tensor.begin + tensor.num_bytes]


class Reader:
    """All shards of a model as one: metadata of the first, tensors of all."""

    def __init__(self, files: list[MappedFile]) -> None:
        self._files = files
        self._places = {tensor.name: (file, tensor) for file in files for tensor in file.header.tensors}

    @property
    def metadata(self) -> Metadata:
        """What the first file says of the model."""
        return self._files[0].header.metadata

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(file.data) for file in self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[TensorInfo]:
        return (tensor for _, tensor in self._places.values())

    def tensor(self, name: str) -> TensorInfo:
        """Where a tensor lies.

        Raises:
            ModelError: there is none of that name.
        """
        if name not in self._places:
            raise ModelError(f"{self.metadata.name} has no tensor {name!r}; allowed: a file that has")
        return self._places[name][1]

    def bytes_of(self, name: str) -> torch.Tensor:
        """A tensor's bytes (n,) uint8, where they lie."""
        file, tensor = self._places[name]
        return file.bytes_of(tensor)

    def forget(self, name: str) -> None:
        """Let go of a tensor's bytes in memory; they are read anew if need be."""
        found = library()
        if found is not None:
            found.forget(self.bytes_of(name))

    def floats(self, name: str) -> torch.Tensor:
        """A tensor of floats as it is stored, where it lies.

        Raises:
            ModelError: it is one of blocks.
        """
        tensor = self.tensor(name)
        if tensor.kind.dtype is None:
            raise ModelError(f"the tensor {name!r} is of {tensor.kind.name}; allowed: F32, F16, BF16")
        return self.bytes_of(name).view(tensor.kind.dtype).view(tensor.shape)


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_reader(path: Path) -> Reader:
    """A file, or all files of a model of which this is a shard.

    Raises:
        ModelError: a file is missing or damaged, or the shards do not belong together.
    """
    first = map_file(path)
    count = first.header.metadata.integer("split.count", 1)
    if count <= 1:
        return Reader([first])
    paths = _shards(path, count)
    files = [first if other == path else map_file(other) for other in paths]
    _check_shards(files, count)
    return Reader(files)


def map_file(path: Path) -> MappedFile:
    """One file, its header read.

    Raises:
        ModelError: there is no such file, or it is damaged.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:
        size = None
    if size is None:
        raise ModelError(f"there is no file {str(path)!r}; allowed: a GGUF file")
    if size < len(MAGIC):
        raise ModelError(f"{path.name} has {size} bytes; allowed: a GGUF file")
    try:
        data = torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise ModelError(f"cannot read {str(path)!r}: {str(error).splitlines()[0]}") from error
    return MappedFile(data, read_header(data.numpy().data, path.name))


def _shards(path: Path, count: int) -> list[Path]:
    """Paths of all shards, by number."""
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match["count"]) != count or count > MAX_SHARDS:
        raise ModelError(
            f"{path.name} says that it is one of {count} shards; allowed: a name that ends in "
            f"-00001-of-{min(count, MAX_SHARDS):05d}.gguf, at most {MAX_SHARDS}"
        )
    paths = [path.with_name(f"{match['stem']}-{i:05d}-of-{count:05d}.gguf") for i in range(1, count + 1)]
    missing = [other.name for other in paths if not other.is_file()]
    if missing:
        raise ModelError(
            f"{path.name} is one of {count} shards, and {missing[0]} is missing; allowed: all in one folder"
        )
    return paths


def _check_shards(files: list[MappedFile], count: int) -> None:
    names: set[str] = set()
    for number, file in enumerate(files):
        metadata = file.header.metadata
        found = metadata.integer("split.no"), metadata.integer("split.count")
        if found != (number, count):
            raise ModelError(f"{metadata.name} says shard {found[0]} of {found[1]}; allowed: {number} of {count}")
        for tensor in file.header.tensors:
            if tensor.name in names:
                raise ModelError(f"{metadata.name}: the tensor {tensor.name!r} is in another shard too; allowed: once")
            names.add(tensor.name)
    wanted = files[0].header.metadata.integer("split.tensors.count", len(names))
    if wanted != len(names):
        raise ModelError(f"{files[0].header.metadata.name} and its shards have {len(names)} tensors; allowed: {wanted}")
