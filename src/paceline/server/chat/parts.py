"""What an answer consists of, piece by piece, and as the blocks that the pieces add up to."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Text:
    """Text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """The beginning of a call."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A fragment of a call's arguments, which are JSON."""

    index: int
    text: str


Part = Text | Reasoning | Call | Arguments
Kind = Literal["text", "reasoning", "call"]


@dataclass(slots=True)
class Block:
    """Neighbouring parts of one kind; `id` and `name` are a call's."""

    kind: Kind
    id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What the parts add up to."""
        return "".join(self.texts)


@dataclass(frozen=True, slots=True)
class Opened:
    """A block begins; `index` is its place in the answer."""

    index: int
    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """A block has more text."""

    index: int
    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A block is complete."""

    index: int
    block: Block


Change = Opened | Grown | Closed


class Blocks:
    """Parts put together as they come."""

    def __init__(self) -> None:
        self.closed: list[Block] = []
        self._open: Block | None = None

    def add(self, part: Part) -> list[Change]:
        """What a part changes."""
        changes: list[Change] = []
        text = "" if isinstance(part, Call) else part.text
        block = self._open
        if block is None or isinstance(part, Call) or (block.kind != _kind(part) and text):
            if not text and not isinstance(part, Call):
                return []
            changes += self.finish()
            block = self._open = _begun(part)
            changes.append(Opened(len(self.closed), block))
        if text:
            block.texts.append(text)
            changes.append(Grown(len(self.closed), block, text))
        return changes

    def finish(self) -> list[Change]:
        """What the end of an answer changes."""
        block, self._open = self._open, None
        if block is None:
            return []
        self.closed.append(block)
        return [Closed(len(self.closed) - 1, block)]


def put_together(parts: Iterable[Part]) -> list[Block]:
    """All blocks of an answer."""
    blocks = Blocks()
    for part in parts:
        blocks.add(part)
    blocks.finish()
    return blocks.closed


def new_call_id() -> str:
    """Nine letters and digits: some templates refuse ids of another form when the call comes back in the history."""
    return "".join([secrets.choice(_LETTERS) for _ in range(9)])


def _kind(part: Part) -> Kind:
    return "text" if isinstance(part, Text) else "reasoning" if isinstance(part, Reasoning) else "call"


def _begun(part: Part) -> Block:
    return Block("call", part.id, part.name) if isinstance(part, Call) else Block(_kind(part))
