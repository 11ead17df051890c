"""Files of JSON lines: prompts with choices and the right one, and what was decided of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.deciding.choices import Choice, likeliest, read_choices
from paceline.errors import ConfigError, RequestError
from paceline.jsonl import check_keys, read_jsonl

_LABELLED = 'lines {"prompt": ..., "choices": [...], "label": ...}'
_DECIDED = 'lines {"prompt": ..., "probabilities": {...}, "label": ...}, as `paceline calibrate --decisions` writes'


@dataclass(frozen=True)
class Labelled:
    """A prompt, its choices as `decide` takes them, and the name of the right one."""

    prompt: str
    choices: tuple[Choice, ...]
    label: str

    @property
    def names(self) -> tuple[str, ...]:
        """Of the choices."""
        return tuple(choice.name for choice in self.choices)


@dataclass(frozen=True)
class Decided:
    """A prompt, the probabilities of its choices, the right one, and below which probability nothing is chosen."""

    prompt: str
    probabilities: Mapping[str, float]
    label: str
    threshold: float = 0.0

    @property
    def best(self) -> str:
        """The likeliest choice."""
        return likeliest(self.probabilities)

    @property
    def probability(self) -> float:
        """Of the likeliest choice."""
        return self.probabilities[self.best]

    @property
    def is_answered(self) -> bool:
        """Whether it was chosen."""
        return self.probability >= self.threshold

    @property
    def is_wrong(self) -> bool:
        """Whether it is another than the right one."""
        return self.best != self.label


def read_labelled(path: Path) -> list[Labelled]:
    """Labelled examples.

    Raises:
        ConfigError: a file that cannot be read, a line of another form, or no line at all.
    """
    return read_jsonl(path, _labelled, "labelled examples", _LABELLED)


def read_decided(path: Path) -> list[Decided]:
    """Decisions and what was right; as `read_labelled`."""
    return read_jsonl(path, _decided, "decisions", _DECIDED)


def write_decided(path: Path, decided: Iterable[Decided]) -> None:
    """Write decisions to a file, a line each.

    Raises:
        ConfigError: the file cannot be written.
    """
    lines = [json.dumps({**vars(one), "probabilities": dict(one.probabilities)}, ensure_ascii=False) for one in decided]
    try:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{str(path)!r}: {error}; allowed: a file that can be written") from error


def _labelled(line: dict[str, Any]) -> Labelled:
    check_keys(line, frozenset({"prompt", "choices", "label"}))
    try:
        choices = tuple(read_choices(line["choices"]))
    except RequestError as error:
        raise ValueError(str(error)) from error
    return Labelled(_text(line["prompt"]), choices, _one_of(line["label"], [choice.name for choice in choices]))


def _decided(line: dict[str, Any]) -> Decided:
    probabilities = {str(name): float(value) for name, value in line["probabilities"].items()}
    if len(probabilities) < 2 or not all(0.0 <= value <= 1.0 for value in probabilities.values()):
        raise ValueError(f"probabilities are {probabilities}, not those of two choices or more")
    label = _one_of(line["label"], list(probabilities))
    return Decided(_text(line["prompt"]), probabilities, label, float(line.get("threshold", 0.0)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a prompt is {value!r}, not a text")
    return value


def _one_of(label: Any, names: list[str]) -> str:
    if label not in names and not (isinstance(label, str) and label.strip() in names):
        raise ValueError(f"a label is {label!r}, none of {', '.join(names)}")
    return str(label).strip()
