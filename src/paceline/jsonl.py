"""Files of JSON lines that users write: read whole, or refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from paceline.errors import ConfigError

T = TypeVar("T")


def read_jsonl(path: Path, make: Callable[[dict[str, Any]], T], what: str, allowed: str) -> list[T]:
    """What `make` makes of each line that is not empty; `what` and `allowed` are for the sentence.

    Raises:
        ConfigError: a file that cannot be read, a line that `make` fails on, or no line at all.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        made = [make(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read {what} from {str(path)!r} ({error}); allowed: {allowed}") from error
    if not made:
        raise ConfigError(f"{str(path)!r} has no {what}; allowed: at least one line")
    return made


def check_keys(line: dict[str, Any], known: frozenset[str]) -> None:
    """Refuse keys that nobody would look at.

    Raises:
        ValueError: a key that is not known.
    """
    unknown = sorted(set(line) - known)
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")
