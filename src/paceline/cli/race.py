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
    from paceline.engine.engine import Engine
    from paceline.engine.request import Token
    from paceline.llm import LLM
    from paceline.options import Call
    from paceline.output import Output
    from paceline.params import SamplingParams

TURN = 0.05  # seconds: long beside a step, so that little is lost by changing over, and short to look at


class Racer:
    """A stream, its tokens so far, and the seconds that they took."""

    def __init__(self, name: str, stream: SteppedStream) -> None:
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


class SteppedStream:
    """A request of an `LLM` that is decoded only while its next token is awaited, a step at a time.

    SteppedStream are taken in the `LLM`'s own thread, whose kernel workers then are the only ones.
    """

    def __init__(self, llm: LLM, engine: Engine, ids: list[int], call: Call) -> None:
        self._runtime, self._engine = llm._runtime, engine
        self._request = self._runtime.request(ids, call)
        self._seen: list[Token] = []
        self._output: Output | None = None
        self._runtime.thread.call(lambda: engine.add(self._request))

    def __iter__(self) -> SteppedStream:
        return self

    def __next__(self) -> Token:
        while not self._request.outbox:
            if self._request.error is not None:
                raise self._request.error
            if self._request.finish_reason is not None:
                self._output = self._runtime.output(self._request, self._seen)  # now: later the `LLM` is closed
                raise StopIteration
            self._runtime.thread.call(self._step)
        self._seen.append(self._request.outbox.popleft())
        return self._seen[-1]

    def _step(self) -> None:
        self._engine.step()

    def close(self) -> None:
        """Free what the request holds."""
        if self._request.finish_reason is None:
            self._request.cancel()
            self._runtime.thread.call(self._engine.sweep)

    @property
    def output(self) -> Output:
        """What was decoded, once it has ended."""
        assert self._output is not None, "it has not been read to its end"
        return self._output


@contextmanager
def racers(llm: LLM, ids: list[int], params: SamplingParams) -> Iterator[tuple[Racer, Racer]]:
    """Plain decoding, and `llm` as it is, at the start; what they hold is freed at the end.

    Each has an engine and a tenant of its own, so that neither waits for the other nor finds what the other has read.
    """
    from paceline.engine.engine import Engine
    from paceline.options import read_call
    from paceline.pacing import FixedPacer

    engine = Engine(llm.target, FixedPacer(0))
    plain, ours = read_call(params, {"drafters": "none", "tenant": "plain"}), read_call(params, {})
    with (
        closing(SteppedStream(llm, engine, ids, plain)) as first,
        closing(SteppedStream(llm, llm.engine, ids, ours)) as second,
    ):
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
