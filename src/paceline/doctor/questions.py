"""The user's own text: prompts, and what was answered where that is known. Knows nothing of models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.bundled import PROMPTS
from paceline.jsonl import check_keys, read_jsonl

_WANTED = (
    'a file of lines {"prompt": ...}, with "output": "...", "prediction": "...", "sampling": {...} and '
    '"category": "..." as one likes'
)
_KEYS = frozenset({"prompt", "output", "prediction", "sampling", "category"})


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
    return read_jsonl(path or PROMPTS, _question, "prompts", _WANTED)


def _question(line: dict[str, Any]) -> Question:
    check_keys(line, _KEYS)
    texts = {key: str(line[key]) for key in ("prediction", "output") if line.get(key)}
    return Question(str(line["prompt"]), str(line.get("category", "text")), dict(line.get("sampling", {})), **texts)
