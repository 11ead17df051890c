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


class Blocks:
    """Parts put together as they come."""

    def __init__(self) -> None:
        self.closed: list[Block] = []
        self.open: Block | None = None

    def begins_with(self, part: Part) -> bool:
        """Whether a part opens a block; the one that is open then has to be closed first."""
        if isinstance(part, Call):
            return True
        if isinstance(part, Arguments) or not part.text:
            return False
        return self.open is None or self.open.kind != _kind(part)

    def begin(self, part: Part) -> Block:
        """The block that a part opens, which does not hold it yet."""
        self.close()
        self.open = Block("call", part.id, part.name) if isinstance(part, Call) else Block(_kind(part))
        return self.open

    def add(self, part: Part) -> str:
        """Put a part into the open block; the text it brings."""
        if isinstance(part, Call) or self.open is None:
            return ""
        self.open.texts.append(part.text)
        return part.text

    def close(self) -> Block | None:
        """The block that was open."""
        block, self.open = self.open, None
        if block is not None:
            self.closed.append(block)
        return block


def put_together(parts: Iterable[Part]) -> list[Block]:
    """All blocks of an answer."""
    blocks = Blocks()
    for part in parts:
        if blocks.begins_with(part):
            blocks.begin(part)
        blocks.add(part)
    blocks.close()
    return blocks.closed


def new_call_id() -> str:
    """Nine letters and digits: some templates refuse ids of another form when the call comes back in the history."""
    return "".join([secrets.choice(_LETTERS) for _ in range(9)])


def _kind(part: Part) -> Kind:
    return "text" if isinstance(part, Text) else "reasoning" if isinstance(part, Reasoning) else "call"
