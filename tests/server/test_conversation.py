"""What is shown of a conversation while nothing of it can be: a sign of life, and no token lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from paceline.engine.request import Token
from paceline.server.chat import conversation as module
from paceline.server.chat.conversation import Conversation, Reading
from paceline.server.chat.parts import Part, Text
from paceline.server.generation import Piece

SILENCE = 10.0


class LateReader:
    """Shows nothing before the end, as where a call is being written."""

    num_calls = 0
    num_reasoning_tokens = 0

    def __init__(self) -> None:
        self._text = ""

    def read(self, tokens: Sequence[Token]) -> list[Part]:
        self._text += "".join([token.text for token in tokens])
        return []

    def finish(self, rest: str) -> list[Part]:
        return [Text(self._text + rest)]


def readings_of(pieces: list[tuple[float, Piece | None]], text: str, patch: pytest.MonkeyPatch) -> list[Reading | None]:
    """What is read of pieces that come at the given times, in seconds."""
    now = [0.0]

    async def given(silence: float) -> AsyncIterator[Piece | None]:
        for moment, piece in pieces:
            now[0] = moment
            yield piece

    async def read() -> list[Reading | None]:
        request: Any = SimpleNamespace(text=text, finish_reason="length")
        generation: Any = SimpleNamespace(pieces=given, requests=[request])
        return [reading async for reading in Conversation(generation, [LateReader()], {}).readings(SILENCE)]

    patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return asyncio.run(read())


def test_tokens_that_show_nothing_are_kept_for_the_next_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [Token(i, f"w{i} ", "target", 0.0, 0.0) for i in range(5)]
    pieces: list[tuple[float, Piece | None]] = [
        (1.0, Piece(0, tokens[:2], False)),
        (10.0, Piece(0, tokens[2:3], False)),  # ten seconds of nothing to show
        (19.0, Piece(0, tokens[3:4], False)),
        (20.0, None),
        (21.0, Piece(0, tokens[4:], True)),
    ]
    found = readings_of(pieces, "w0 w1 w2 w3 w4 EN", monkeypatch)
    assert found[:-1] == [None, None]
    last = found[-1]
    assert last is not None
    assert last.is_last
    assert last.tokens == tokens
    assert last.parts == [Text("w0 w1 w2 w3 w4 EN")]  # the end came with no token
