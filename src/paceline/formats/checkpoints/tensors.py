"""The tensors of a folder's safetensors files, by name: looked up in the headers, mapped when asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from paceline.errors import ModelError, first_line

_INDEX = ".safetensors.index.json"


class Entry(NamedTuple):
    """What a header says of a tensor, within the bytes of its file: safetensors checks that."""

    shape: tuple[int, ...]
    dtype: str  # safetensors' word: "I32", "F16", "F8_E4M3"
    num_bytes: int


class Tensors:
    """Tensors by name, in the order of the files. Never unpickles: safetensors only.

    Raises:
        ModelError: no such file, or one that is damaged; a tensor of the index that its file does not hold.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths, self._file_of = _files(folder)
        self.num_bytes = sum(path.stat().st_size for path in paths)
        self.metadata: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self._handles = {path.name: self._opened(path) for path in paths}
        for name, file in self._file_of.items():
            if name not in self._entries:
                raise ModelError(f"{folder}: the index says that {name} is in {file}, which does not hold it")

    def _opened(self, path: Path) -> Any:
        """An open file, its entries noted."""
        try:
            handle: Any = safe_open(path, framework="pt")
            for name in handle.keys():  # noqa: SIM118 -- no mapping
                part = handle.get_slice(name)
                if self._file_of.setdefault(name, path.name) == path.name:
                    self._entries[name] = _entry(part)
            self.metadata |= handle.metadata() or {}
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is no whole safetensors file: {first_line(error)}") from error
        return handle

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> torch.Tensor:
        """A tensor, mapped from its file.

        Raises:
            ModelError: there is none, or its dtype is not one of torch's.
        """
        self.entry(name)
        try:
            tensor: torch.Tensor = self._handles[self._file_of[name]].get_tensor(name)
        except (SafetensorError, OSError, ValueError, AttributeError, RuntimeError) as error:
            raise ModelError(f"{self.folder}: {name} cannot be read: {first_line(error)}") from error
        return tensor

    def entry(self, name: str) -> Entry:
        """What the header says.

        Raises:
            ModelError: there is no such tensor.
        """
        if name not in self._entries:
            raise ModelError(f"{self.folder}: the tensor {name} is missing")
        return self._entries[name]

    def with_suffix(self, suffix: str) -> Iterator[str]:
        """The modules that have a tensor of this name: `model.layers.0.mlp.up_proj` of `….qweight`."""
        for name in list(self._entries):
            if name.endswith(f".{suffix}"):
                yield name[: -len(suffix) - 1]


def _entry(part: Any) -> Entry:
    shape, dtype = tuple(part.get_shape()), str(part.get_dtype())
    bits = int("".join(c for c in dtype.split("_")[0] if c.isdigit()) or 8)  # "BOOL" has none
    return Entry(shape, dtype, torch.Size(shape).numel() * bits // 8)


def _files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files to read, and which of them holds what, if an index says so."""
    for index in _named(folder, _INDEX):
        file_of = _weight_map(index)
        paths = [folder / name for name in sorted(set(file_of.values()))]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise ModelError(f"{folder}: {index.name} names {missing[0]}, which is not there")
        return paths, file_of
    found = _named(folder, ".safetensors")
    if not found:
        raise ModelError(f"{folder} holds no .safetensors file; other files of weights are not read")
    return found, {}


def _named(folder: Path, suffix: str) -> list[Path]:
    """The one file with this suffix, that of `model` if there are several, if any."""
    usual = folder / f"model{suffix}"
    found = [usual] if usual.is_file() else sorted(folder.glob(f"*{suffix}"))
    if len(found) > 1:
        raise ModelError(f"{folder} holds {len(found)} files *{suffix}; allowed: one, or one called {usual.name}")
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor. A file is one of the index's own folder."""
    file_of = read_json(index).get("weight_map")
    if not isinstance(file_of, dict) or not file_of:
        raise ModelError(f"{index} has no weight_map")
    for name, file in file_of.items():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelError(f"{index} puts {name} into {file!r}; allowed: a .safetensors file of its folder")
    return file_of


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        ModelError: it cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds a {type(data).__name__}; allowed: an object")
    return data
