"""From the tokens of one sample to the parts of its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from paceline.engine.request import Token
from paceline.server.chat.parts import Arguments, Call, Part, Text, new_call_id


class Reader(Protocol):
    """Reads one answer."""

    num_calls: int
    num_reasoning_tokens: int

    def read(self, tokens: Sequence[Token]) -> list[Part]:
        """The parts that the next tokens complete."""

    def finish(self, rest: str) -> list[Part]:
        """What had been held back; `rest` is text that came with no token, as the answer was cut."""


class PlainReader:
    """All is text."""

    num_calls = 0
    num_reasoning_tokens = 0

    def read(self, tokens: Sequence[Token]) -> list[Part]:
        """One part, which may be empty."""
        return [Text("".join([token.text for token in tokens]))] if tokens else []

    def finish(self, rest: str) -> list[Part]:
        """The rest."""
        return [Text(rest)] if rest else []


class ForcedCallReader:
    """All is one call, spelled as the grammar has it: `{"name": "f", "arguments": {…}}`."""

    num_reasoning_tokens = 0
    _HEAD, _BETWEEN = '{"name": ', ', "arguments": '

    def __init__(self) -> None:
        self.num_calls = 0
        self._read: list[str] = []
        self._text = ""  # what has been read, and not been given out

    def read(self, tokens: Sequence[Token]) -> list[Part]:
        """The call once its name is complete, then its arguments but for the last character, which may end the call."""
        self._read += [token.text for token in tokens]
        self._text += "".join([token.text for token in tokens])
        begun = self._begin() if self.num_calls == 0 else []
        if self.num_calls == 0 or len(self._text) < 2:
            return begun
        arguments, self._text = self._text[:-1], self._text[-1:]
        return [*begun, Arguments(0, arguments)]

    def finish(self, rest: str) -> list[Part]:
        """The last character, if it is not the one that ends the call; what has no name yet is text."""
        text, self._text = self._text + rest, ""
        if self.num_calls == 0:
            return [Text(text)] if text else []
        with suppress(ValueError):
            json.loads("".join(self._read))
            return []
        return [Arguments(0, text)] if text else []

    def _begin(self) -> list[Part]:
        try:
            name, end = json.JSONDecoder().raw_decode(self._text, len(self._HEAD))
        except ValueError:
            return []  # its name is not complete
        if not self._text.startswith(self._BETWEEN, end):
            return []
        self._text = self._text[end + len(self._BETWEEN) :]
        self.num_calls = 1
        return [Call(0, new_call_id(), name)]
