"""The user's own text: prompts, and what was answered where that is known. Knows nothing of models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.bundled import PROMPTS
from paceline.errors import ConfigError

_WANTED = (
    'a file of lines {"prompt": ...}, with "output": "...", "prediction": "...", "sampling": {...} and '
    '"category": "..." as one likes'
)
_KEYS = {"prompt", "output", "prediction", "sampling", "category"}


@dataclass(frozen=True)
class Question:
    """A prompt, the kind of text it stands for, and what goes with it."""

    prompt: str
    category: str = "text"
    sampling: dict[str, Any] = field(default_factory=dict)  # as `LLM.generate` takes them
    prediction: str | None = None  # passed on to drafters
    output: str | None = None  # what was answered: read instead of decoded, as if greedily


def read_questions(path: Path | None) -> list[Question]:
    """Questions from a file of JSON lines; None is the file of prompts that comes with Paceline.

    Raises:
        ConfigError: a file that cannot be read, a line that is not of this form, or no line at all.
    """
    path = path or PROMPTS
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        questions = [_question(line) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot read prompts from {str(path)!r} ({error}); allowed: {_WANTED}") from error
    if not questions:
        raise ConfigError(f"{str(path)!r} has no prompts; allowed: at least one line")
    return questions


def _question(line: dict[str, Any]) -> Question:
    unknown = sorted(set(line) - _KEYS)
    if unknown:
        raise ValueError(f"unknown keys: {', '.join(unknown)}")
    texts = {key: str(line[key]) for key in ("prediction", "output") if line.get(key)}
    return Question(str(line["prompt"]), str(line.get("category", "text")), dict(line.get("sampling", {})), **texts)
