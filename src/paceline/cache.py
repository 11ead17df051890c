"""What is kept between processes: small JSON files in the user's cache folder, each written whole or not at all.

A cache is never needed: what cannot be read is not there, and what cannot be written is forgotten.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_KEY_LENGTH = 32  # hexadecimal digits


def cache_folder() -> Path:
    """`PACELINE_CACHE`, else `paceline` in `XDG_CACHE_HOME` or in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PACELINE_CACHE") or Path(base) / "paceline")


def state_folder() -> Path:
    """Where what a user would miss is kept: `PACELINE_CACHE`, else `paceline` in `XDG_STATE_HOME`, `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("PACELINE_CACHE") or Path(base) / "paceline")


def cache_key(what: Mapping[str, Any]) -> str:
    """A short name for what an entry is about, in hexadecimal digits that say nothing of it; `what` is plain JSON."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:_KEY_LENGTH]


def cache_file(kind: str, what: Mapping[str, Any]) -> Path:
    """Where the entry of a kind about `what` is kept."""
    return cache_folder() / kind / f"{cache_key(what)}.json"


def read_json(path: Path, max_age: float = float("inf")) -> Any | None:
    """What a file says; None if it is missing, older than `max_age` seconds, or cannot be read."""
    try:
        if time.time() - path.stat().st_mtime > max_age:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Write a file in one piece, in place of an earlier one; where that fails, nothing is changed or left behind."""
    text = json.dumps(value)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as folder:
            file = Path(folder) / path.name
            file.write_text(text, encoding="utf-8")
            os.replace(file, path)
