"""Two ways of decoding one prompt with one loaded model, in turns, each by a clock of its own.

Two threads would share the cores and spoil both clocks. So one decodes at a time: the one whose clock is behind, for a
short turn. A clock runs only while its own racer decodes, its reading of the prompt included.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paceline.engine.request import Token
    from paceline.llm import LLM, Stream
    from paceline.output import Output
    from paceline.params import SamplingParams

TURN = 0.05  # seconds: long beside a step, so that little is lost by changing over, and short to look at


class Racer:
    """A stream, its tokens so far, and the seconds that they took."""

    def __init__(self, name: str, stream: Stream) -> None:
        self.name, self._stream = name, stream
        self.tokens: list[Token] = []
        self.seconds = 0.0
        self.is_done = False

    def advance(self) -> None:
        """Decode for a turn: one step at least."""
        end = self.seconds + TURN
        while not self.is_done and self.seconds < end:
            started = time.perf_counter()
            token = next(self._stream, None)
            self.seconds += time.perf_counter() - started
            if token is None:
                self.is_done = True
            else:
                self.tokens.append(token)

    @property
    def output(self) -> Output:
        """What it decoded, once it is done."""
        return self._stream.output


@contextmanager
def racers(llm: LLM, ids: list[int], params: SamplingParams) -> Iterator[tuple[Racer, Racer]]:
    """Plain decoding, and `llm` as it is, at the start; both streams are closed at the end.

    Each has an engine and a tenant of its own, so that neither waits for the other nor finds what the other has read.
    """
    from paceline.llm import LLM
    from paceline.pacing import FixedPacer

    plain = LLM(llm.target, llm.tokenizer, info=llm.info, drafters="none", pacer=FixedPacer(0))
    with closing(plain.stream(ids, params, tenant="plain")) as first, closing(llm.stream(ids, params)) as second:
        yield Racer("plain decoding", first), Racer("Paceline", second)


def race(pair: tuple[Racer, Racer]) -> Iterator[None]:
    """Let both decode to their ends; yields after every turn, while no clock runs."""
    while running := [racer for racer in pair if not racer.is_done]:
        min(running, key=lambda racer: racer.seconds).advance()
        yield


def first_difference(first: Output, second: Output) -> int | None:
    """Where two outputs part, in tokens; None if tokens and text are the same."""
    if (first.token_ids, first.text) == (second.token_ids, second.text):
        return None
    same = zip(first.token_ids, second.token_ids, strict=False)
    shared = min(len(first.token_ids), len(second.token_ids))
    return next((index for index, (one, other) in enumerate(same) if one != other), shared)
