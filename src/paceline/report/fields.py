"""Spoken commands with their true answers, and the fields of an answer, right or wrong.

A model trained on SNIPS continues `Command: ...` and a line `JSON:` with `{"intent": ..., "slots": {name: value}}`.
A field is one `"name": "value"` of that, also where the rest is no JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.jsonl import read_jsonl

_STRING = r'"((?:[^"\\]|\\.)*)"'
_FIELD = re.compile(rf"{_STRING}\s*:\s*{_STRING}")
_WANTED = 'lines {"command": ..., "intent": ..., "slots": {...}}'


@dataclass(frozen=True)
class Command:
    """A command and what it means."""

    text: str
    intent: str
    slots: dict[str, str]

    @property
    def prompt(self) -> str:
        """The command as the bundled model was trained to read it."""
        return f"Command: {self.text}\nJSON:"

    @property
    def truth(self) -> dict[str, str]:
        """The value of each field of the true answer."""
        return {"intent": self.intent, **self.slots}


@dataclass(frozen=True)
class Field:
    """One field of an answer; `start` and `end` are characters of the answer's text."""

    name: str
    value: str
    start: int
    end: int


def read_commands(path: Path) -> list[Command]:
    """Commands from a file of JSON lines.

    Raises:
        ConfigError: a file that cannot be read, a line of another form, or no line at all.
    """
    return read_jsonl(path, _command, "commands", _WANTED)


def _command(line: dict[str, Any]) -> Command:
    return Command(str(line["command"]), str(line["intent"]), dict(line["slots"]))


def fields_of(answer: str) -> list[Field]:
    """The fields of an answer, in order."""
    return [
        Field(_unescaped(found[1]), _unescaped(found[2]), found.start(), found.end())
        for found in _FIELD.finditer(answer)
    ]


def tokens_within(texts: Sequence[str], start: int, end: int) -> list[int]:
    """Which of the tokens whose texts make an answer have a character in [start, end)."""
    inside, place = [], 0
    for index, text in enumerate(texts):
        if place < end and place + len(text) > start and text:
            inside.append(index)
        place += len(text)
    return inside


def _unescaped(text: str) -> str:
    """What a JSON string stands for; itself if it is none."""
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text
