"""Forms of prompt sets, told apart by the keys of a line. Adding one is an entry of `FORMATS`.

Knows nothing of files, models or tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = "FULL BENCHMARK DATA SHOULD BE FETCHED"  # how SPEED-Bench stands in for texts it may not pass on


@dataclass(frozen=True)
class Prompt:
    """What a user says, in one turn or several, and the kind of text that it stands for."""

    category: str
    turns: tuple[str, ...]

    @property
    def text(self) -> str:
        """The first turn."""
        return self.turns[0]


@dataclass(frozen=True)
class Format:
    """A form of lines: the keys that tell it, and how a line is read."""

    name: str
    keys: frozenset[str]
    read: Callable[[Mapping[str, Any]], Prompt]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(sorted(self.keys))})"


def _turns(line: Mapping[str, Any]) -> Prompt:
    turns = line["turns"]
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"'turns' is {turns!r:.40}; allowed: a list of texts")
    return Prompt(_text(line, "category"), tuple(_checked("turns", turn) for turn in turns))


def _single(category: str, key: str) -> Callable[[Mapping[str, Any]], Prompt]:
    """A reader of sets that are of one category as a whole."""
    return lambda line: Prompt(category, (_text(line, key),))


def _named(category_key: str) -> Callable[[Mapping[str, Any]], Prompt]:
    """A reader of sets that name each line's category."""
    return lambda line: Prompt(_text(line, category_key), (_text(line, "prompt"),))


def _text(line: Mapping[str, Any], key: str) -> str:
    return _checked(key, line[key])


def _checked(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key!r} is {value!r:.40}; allowed: a text")
    value.encode()  # half a surrogate pair is no text, and a ValueError
    if _PLACEHOLDER in value:
        raise ValueError("the text is not in the file; complete SPEED-Bench by its prepare_data.py first")
    return value


# The first whose keys a line has all is its form, so those that ask for more stand first.
FORMATS = (
    Format("SPEED-Bench", frozenset({"category", "sub_category", "turns"}), _turns),
    Format("Spec-Bench or MT-Bench", frozenset({"question_id", "category", "turns"}), _turns),
    Format("HumanEval", frozenset({"task_id", "prompt", "entry_point"}), _single("humaneval", "prompt")),
    Format("GSM8K", frozenset({"question", "answer"}), _single("gsm8k", "question")),
    Format("tasks", frozenset({"task", "prompt"}), _named("task")),
    Format("prompts", frozenset({"category", "prompt"}), _named("category")),
)


def format_of(line: Any) -> Format:
    """The form of a line.

    Raises:
        ValueError: it is of no known form.
    """
    keys = set(line) if isinstance(line, dict) else set()
    for known in FORMATS:
        if known.keys <= keys:
            return known
    found = ", ".join(sorted(map(str, keys))) or "no object"
    raise ValueError(f"has {found:.120}; allowed: the keys of {'; '.join(map(str, FORMATS))}")
