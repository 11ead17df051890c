"""Hashes of the files that a model was loaded from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from transformers.utils.hub import cached_file

from paceline.bundled import bundled_path

_SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".jinja"}
_PART = 2**22  # bytes read at once


def file_hashes(model: str) -> dict[str, str]:
    """SHA-256 of each file of a bundled model, a folder or a hub name's local copy, by file name; or of a file."""
    if (file := Path(model).expanduser()).is_file():
        return {file.name: _sha256(file)}
    folder = _folder(model)
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES}


def _folder(model: str) -> Path:
    local = bundled_path(model) or Path(model).expanduser()
    if local.is_dir():
        return local
    return Path(str(cached_file(model, "config.json", local_files_only=True))).parent


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_PART):
            found.update(part)
    return found.hexdigest()
