"""A store's texts in one file, which several processes may share and which no crash leaves half written.

An npz archive of plain arrays (checksummed; nothing is ever unpickled): the texts, a hash of each text's owner with the
salt of the hashes, the vocabulary, a format version. It is replaced as a whole, under a lock, by what it holds
by then and what is to be saved, so that no writer loses another's text.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paceline.drafters._store.ring import Texts
from paceline.errors import ConfigError, first_line

try:
    import fcntl
except ImportError:  # no such lock on this system: there, one process per file
    fcntl = None  # type: ignore[assignment]

VERSION = 1
SALT_BYTES = 16


@dataclass(frozen=True)
class Vocabulary:
    """Whose token ids they are."""

    size: int
    fingerprint: str = ""  # of the tokenizer's entries; empty if there is no tokenizer

    def fits(self, other: Vocabulary) -> bool:
        """Whether they may be the same, as far as both are known."""
        unknown = not self.fingerprint or not other.fingerprint
        return self.size == other.size and (unknown or self.fingerprint == other.fingerprint)

    def __str__(self) -> str:
        named = f" with fingerprint {self.fingerprint[:12]}" if self.fingerprint else ""
        return f"{self.size} entries{named}"


@dataclass(frozen=True)
class _Content:
    salt: bytes
    vocabulary: Vocabulary
    texts: Texts


class _DamagedError(Exception):
    """The file is no store, or no longer."""


class StoreFile:
    """The file at `path`. What went wrong without stopping anything is appended to `troubles`, in words."""

    def __init__(self, path: str | os.PathLike[str], vocabulary: Vocabulary) -> None:
        self.path = Path(path)
        self.vocabulary = vocabulary
        self.salt = b""  # of the hashes of owners; known once the file is open
        self.troubles: list[str] = []

    def open(self) -> Texts:
        """The texts in the file, oldest first, which is made if there is none and set aside if it is damaged.

        Raises ConfigError if it is of another vocabulary, of a newer format, or cannot be read or written.
        """
        try:
            with self._locked():
                content = self._read()
                if content is None:
                    content = _Content(secrets.token_bytes(SALT_BYTES), self.vocabulary, Texts.of([]))
                    self._write(content)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be used: {first_line(error)}; allowed: a writable file") from error
        self.salt = content.salt
        return content.texts

    def save(self, texts: Texts, max_tokens: int) -> None:
        """Replace the file by its texts and these, the newest `max_tokens` of all; if that fails, the old one stays."""
        try:
            with self._locked():
                content = self._read()
                if content is not None and content.salt != self.salt:
                    raise ConfigError(f"{self.path} has been replaced by another since it was opened")
                merged = _merge(content.texts if content else Texts.of([]), texts, max_tokens)
                known = content is not None and not self.vocabulary.fingerprint
                vocabulary = content.vocabulary if content is not None and known else self.vocabulary
                self._write(_Content(self.salt, vocabulary, merged))
        except (OSError, ConfigError) as error:
            self.troubles.append(f"nothing was saved to {self.path}, which stays as it was: {first_line(error)}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among processes; the lock goes with the process, also when it is killed."""
        with open(f"{self.path}.lock", "ab") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self) -> _Content | None:
        """What the file holds; None if it does not exist or was damaged and is set aside."""
        if not self.path.exists():
            return None
        try:
            content = _parse(self.path)
        except _DamagedError as error:
            aside = Path(f"{self.path}.corrupt")
            os.replace(self.path, aside)
            self.troubles.append(f"{self.path} is damaged ({error}); set aside as {aside.name}, begun anew")
            return None
        if not content.vocabulary.fits(self.vocabulary):
            raise ConfigError(
                f"{self.path} is of a vocabulary of {content.vocabulary}; allowed: the model's, {self.vocabulary}"
            )
        return content

    def _write(self, content: _Content) -> None:
        """Put a new file in place of the old one at once, on the disk and not only in its cache."""
        temporary = Path(f"{self.path}.tmp")  # one name, since the lock is held: what a crash left is written over
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                np.savez(file, **_arrays(content))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(self.path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _arrays(content: _Content) -> dict[str, Any]:
    texts, vocabulary = content.texts, content.vocabulary
    return {
        "version": np.array(VERSION),
        "salt": np.frombuffer(content.salt, np.uint8),
        "vocab_size": np.array(vocabulary.size),
        "fingerprint": np.frombuffer(vocabulary.fingerprint.encode(), np.uint8),
        "tokens": texts.tokens,
        "lengths": texts.lengths,
        "owners": texts.owners,
    }


def _parse(path: Path) -> _Content:
    """Raises _DamagedError for whatever is not a store, ConfigError for a newer one, OSError if it cannot be read."""
    data = path.read_bytes()
    try:
        found = _unpacked(data)
        version = int(found["version"])
        vocabulary = Vocabulary(int(found["vocab_size"]), found["fingerprint"].tobytes().decode())
        texts = Texts(found["tokens"], found["lengths"], found["owners"])
        salt = found["salt"].tobytes()
    except Exception as error:  # the readers of damaged archives raise more than they name
        raise _DamagedError(first_line(error)) from error
    if version > VERSION:
        raise ConfigError(f"{path} is of format {version}; allowed: up to {VERSION}")
    _check(texts, salt, vocabulary.size)
    return _Content(salt, vocabulary, texts)


def _unpacked(data: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > len(data):
            raise _DamagedError("its parts are larger than the whole")  # what a zip bomb looks like
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _check(texts: Texts, salt: bytes, vocab_size: int) -> None:
    kinds = [(a.dtype.str, a.ndim) for a in (texts.tokens, texts.lengths, texts.owners)]
    if kinds != [("<i4", 1), ("<i4", 1), ("<i8", 1)] or len(salt) != SALT_BYTES:
        raise _DamagedError("its arrays are of the wrong kind")
    lengths_fit = len(texts.lengths) == len(texts.owners) and texts.lengths.sum(dtype=np.int64) == len(texts.tokens)
    if not lengths_fit or (texts.lengths < 1).any() or (texts.owners == 0).any():
        raise _DamagedError("its lengths do not fit its texts")
    if ((texts.tokens < 0) | (texts.tokens >= vocab_size)).any():
        raise _DamagedError("it has tokens outside its vocabulary")


def _merge(theirs: Texts, mine: Texts, max_tokens: int) -> Texts:
    """Both, what is mine as the newer, without what mine has already; the newest `max_tokens`."""
    own = list(mine)
    known = {(owner, text.tobytes()) for text, owner in own}
    pairs = [(text, owner) for text, owner in theirs if (owner, text.tobytes()) not in known] + own
    kept, room = [], max_tokens
    for text, owner in reversed(pairs):
        room -= len(text)
        if room < 0:
            break
        kept.append((text, owner))
    return Texts.of(kept[::-1])
