"""Snapshots of what was learnt, on disk: the last three promoted, whole or not at all, whenever the process is killed.

Weights are safetensors files, never written over. A manifest names those that count, with their digests. Both appear
by a rename, the manifest last: so a kill leaves the old manifest with its files, or the new one with its own. What does
not have its digest is passed over. What cannot be written is given up with a warning: nothing ever depends on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from paceline.cache import cache_folder, cache_key

KEPT = 3  # snapshots of a head for a tenant
MOST_BYTES = 64 << 20  # of a file that is read

_MANIFEST = "manifest.json"
_ORPHAN_AGE = 3600.0  # seconds: a file that no manifest names may be another process's, who is about to name it
_MOST_FOLDERS = 64  # heads and tenants that anything is kept of

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Snapshot:
    """Weights that drafted once, and what was known of them."""

    weights: Arrays
    belief: float  # their mean overlap with the target's law when they were promoted
    attempt: int  # the candidate's number in its line


@dataclass(frozen=True)
class _Entry:
    """A line of a manifest."""

    file: str
    sha256: str
    belief: float
    attempt: int


class SnapshotStore:
    """The snapshots of one head for one tenant.

    Args:
        folder: where they are; made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_warned = False

    @staticmethod
    def of(head: str, tenant: str) -> SnapshotStore:
        """That in the user's cache folder, of a head by its digest; a folder's name says nothing of the tenant."""
        return SnapshotStore(_root() / cache_key({"head": head, "tenant": tenant}))

    def save(self, snapshot: Snapshot) -> bool:
        """Keep a snapshot as the newest; whether that was possible. If not, the others stay, and it warns once."""
        try:
            self._save(snapshot)
        except OSError as error:
            if not self._is_warned:
                what = f"what was learnt could not be kept in {self._folder}: {error.strerror or error}"
                warnings.warn(f"{what}; it goes on being learnt", RuntimeWarning, stacklevel=2)
            self._is_warned = True
            return False
        return True

    def load(self) -> list[Snapshot]:
        """Those that are whole, newest first. Of a file that is not, a warning is given."""
        found = []
        for entry in self._entries():
            weights = self._read(entry)
            if weights is None:
                warnings.warn(f"{self._folder / entry.file} was passed over: not what was written", RuntimeWarning, 2)
            else:
                found.append(Snapshot(weights, entry.belief, entry.attempt))
        return found

    def _save(self, snapshot: Snapshot) -> None:
        _make_room(self._folder)
        data = safetensors.save({name: np.ascontiguousarray(array) for name, array in snapshot.weights.items()})
        digest = hashlib.sha256(data).hexdigest()
        former = self._entries()
        entry = _Entry(f"{digest[:32]}.safetensors", digest, snapshot.belief, snapshot.attempt)
        entries = [entry, *(one for one in former if one.file != entry.file)]
        _write(self._folder / entry.file, data)
        _write(self._folder / _MANIFEST, _manifest(entries[:KEPT]))
        self._sweep({one.file for one in entries[:KEPT]}, {one.file for one in former})

    def _entries(self) -> list[_Entry]:
        """What the manifest names; nothing where it is missing or not what was written."""
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            said = json.loads((self._folder / _MANIFEST).read_bytes())
            if said["sha256"] == _digest_of(said["snapshots"]):
                return [_Entry(**one) for one in said["snapshots"]]
        return []

    def _read(self, entry: _Entry) -> Arrays | None:
        path = self._folder / Path(entry.file).name
        with suppress(OSError, ValueError):
            if path.stat().st_size <= MOST_BYTES:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest() == entry.sha256:
                    return cast(Arrays, safetensors.load(data))
        return None

    def _sweep(self, named: set[str], former: set[str]) -> None:
        """Remove the files that the manifest named before, and what a kill has left behind."""
        for path in self._folder.iterdir():
            if path.name not in named | {_MANIFEST} and (path.name in former or _age(path) > _ORPHAN_AGE):
                with suppress(OSError):
                    path.unlink()


def _root() -> Path:
    return cache_folder() / "learning"


def _digest_of(entries: Any) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _manifest(entries: list[_Entry]) -> bytes:
    said = [asdict(entry) for entry in entries]
    return json.dumps({"snapshots": said, "sha256": _digest_of(said)}, indent=1).encode()


def _write(path: Path, data: bytes) -> None:
    """Have a file appear with its content, and stay even if the machine stops; else nothing is left behind."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with _opened(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    with _opened(path.parent, os.O_RDONLY) as folder:
        os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """A file's number while a `with` lasts."""
    number = os.open(path, flags, 0o600)
    try:
        yield number
    finally:
        os.close(number)


def _age(path: Path) -> float:
    """Seconds since a file was written; none if it is gone."""
    with suppress(OSError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _make_room(folder: Path) -> None:
    """Make a folder; beside it there are `_MOST_FOLDERS` at most, and those not written to for longest go."""
    if folder.is_dir():
        return
    if folder.parent.is_dir():
        others = sorted((path for path in folder.parent.iterdir() if path.is_dir()), key=_age)
        for path in others[_MOST_FOLDERS - 1 :]:
            shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
