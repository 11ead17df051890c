"""Blocks kept between processes: a safetensors file, written whole or not at all, mapped when it is read.

It is never needed: what is missing, damaged or finds no room is quantised anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from safetensors import SafetensorError, safe_open

Shape = tuple[int, int]  # rows, bytes of a row
_SEALS = "seals"  # a tensor of the file: a digest of samples of each of the others, in order of their names
_SEAL = 16  # bytes
_SAMPLES, _SAMPLE = 64, 64  # places of a tensor that are looked at, and bytes there


class Kept(Protocol):
    """Where blocks come from, or go to."""

    def read(self, name: str) -> torch.Tensor | None:
        """The bytes (rows, bytes of a row) of a weight; None if they are not here."""

    def write(self, name: str, data: torch.Tensor) -> None:
        """Keep a weight's bytes."""

    def close(self) -> None:
        """No more will be read or written: what has all its weights stays."""


def open_kept(path: Path | None, shapes: Mapping[str, Shape]) -> Kept:
    """What there is at `path` for weights of these shapes: a file to read, room for a new one, or nothing."""
    if path is None:
        return _Nothing()
    with suppress(SafetensorError, OSError, ValueError):
        return _Reading(path, shapes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if 2 * sum(rows * width for rows, width in shapes.values()) <= shutil.disk_usage(path.parent).free:
            return _Writing(path, shapes)
    except OSError:
        pass
    return _Nothing()


class _Nothing:
    def read(self, name: str) -> torch.Tensor | None:
        return None

    def write(self, name: str, data: torch.Tensor) -> None:
        pass

    def close(self) -> None:
        pass


class _Reading:
    """A file that has all the weights. One that is damaged goes when it has been read."""

    def __init__(self, path: Path, shapes: Mapping[str, Shape]) -> None:
        self._path, self._is_damaged = path, False
        handle: Any = safe_open(path, framework="pt")
        self._handle = handle
        seals = handle.get_tensor(_SEALS)
        found = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        if found != {**shapes, _SEALS: (len(shapes), _SEAL)}:
            raise ValueError(f"{path} has other weights")
        self._seals = dict(zip(sorted(shapes), seals, strict=True))

    def read(self, name: str) -> torch.Tensor | None:
        data: torch.Tensor = self._handle.get_tensor(name)
        if data.dtype == torch.uint8 and seal(data) == bytes(self._seals[name].tolist()):
            return data
        self._is_damaged = True
        return None

    def write(self, name: str, data: torch.Tensor) -> None:
        pass

    def close(self) -> None:
        if self._is_damaged:
            with suppress(OSError):
                self._path.unlink()


class _Writing:
    """A file that takes its name when all weights are in it; it goes if that fails, or if the process gives up."""

    def __init__(self, path: Path, shapes: Mapping[str, Shape]) -> None:
        self._path, self._seals = path, dict.fromkeys(sorted(shapes), b"")
        self._folder = tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True)
        head, self._places = _header({**shapes, _SEALS: (len(shapes), _SEAL)})
        self._file: BinaryIO | None = (Path(self._folder.name) / path.name).open("wb")
        self._put(0, head)

    def read(self, name: str) -> torch.Tensor | None:
        return None

    def write(self, name: str, data: torch.Tensor) -> None:
        self._seals[name] = seal(data)
        self._put(self._places[name], data.contiguous().numpy().data)

    def close(self) -> None:
        if all(self._seals.values()):
            self._put(self._places[_SEALS], b"".join(self._seals.values()))
            if self._file is not None:
                with suppress(OSError):
                    self._file.close()
                    os.replace(self._file.name, self._path)
        self._give_up()

    def _put(self, place: int, data: Any) -> None:
        if self._file is None:
            return
        try:
            self._file.seek(place)
            self._file.write(data)
        except OSError:  # the disk is full
            self._give_up()

    def _give_up(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None
        self._folder.cleanup()


def _header(shapes: Mapping[str, Shape]) -> tuple[bytes, dict[str, int]]:
    """The header of a safetensors file of bytes, and where in the file each tensor begins."""
    entries, places, end = {}, {}, 0
    for name, (rows, width) in shapes.items():
        places[name] = end
        end += rows * width
        entries[name] = {"dtype": "U8", "shape": [rows, width], "data_offsets": [places[name], end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 64 + 56)  # data begins at a whole cache line
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + place for name, place in places.items()}


def seal(data: torch.Tensor) -> bytes:
    """A digest of samples of some bytes, the first and last among them."""
    flat = data.contiguous().view(-1).numpy()
    last = max(0, len(flat) - _SAMPLE)
    starts = {last * i // (_SAMPLES - 1) for i in range(_SAMPLES)}
    found = hashlib.sha256(str(len(flat)).encode())
    for start in sorted(starts):
        found.update(flat[start : start + _SAMPLE].tobytes())
    return found.digest()[:_SEAL]
