"""Drafting simulated without the target: drafters, pacer and engine are real, what the target says is recorded.

Time is real but for forwards, which take what the cost table says, and for the moving of accepted rows in the cache.
Rows beside the recorded path were never computed; they are what the target last thought after the same token, or say
nothing. So drafters that learn from them learn a little less than they would.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.doctor.costs import Seconds
from paceline.doctor.recording import RecordedOutput, Row
from paceline.engine.engine import Engine
from paceline.engine.ports import Pacer, Target
from paceline.engine.request import Request
from paceline.engine.stats import Stats
from paceline.engine.tree import DraftTree
from paceline.llm import LLM
from paceline.options import Drafters
from paceline.pacing import AdaptivePacer, CostTable, FixedPacer, ForwardCost
from paceline.pacing.measuring import evict_caches
from paceline.sampling.sampler import SampledToken, Sampler, SamplerContext
from paceline.testing import WrappedTarget


class ReplayClock:
    """Seconds of the replay."""

    def __init__(self) -> None:
        self._shift = 0.0

    def __call__(self) -> float:
        """Now."""
        return time.perf_counter() + self._shift

    @contextmanager
    def instead(self, seconds: float) -> Iterator[None]:
        """Let what is done here take so long."""
        started = time.perf_counter()
        yield
        self._shift += seconds - (time.perf_counter() - started)


@dataclass(frozen=True)
class Replayed:
    """One recording decoded again."""

    forwards: tuple[tuple[int, int], ...]  # (rows, context) of each step
    host_seconds: float  # of decoding, beside the target's forwards
    stats: Stats  # those of the output

    def seconds(self, cost: Seconds) -> float:
        """Decoding time under these costs."""
        return self.host_seconds + sum(cost(*forward) for forward in self.forwards)


class ReplayTarget(WrappedTarget):
    """A target that says what it said, and says it in no time but by the clock. One request at a time."""

    def __init__(self, inner: Target, recordings: Sequence[RecordedOutput], clock: ReplayClock) -> None:
        super().__init__(inner)
        self.cost: Seconds = lambda rows, context: 0.0
        self.forwards: list[tuple[int, int]] = []
        self._clock = clock
        self._recordings = recordings
        self._now = 0
        self._has_read = False
        self._said: dict[int, Row] = {}  # token -> the row behind it, of what has been said

    def play(self, index: int) -> None:
        """Turn to a recording."""
        self._now, self.forwards, self._has_read = index, [], False
        self._said = {}
        for other in (*self._recordings[index + 1 :], *self._recordings[:index]):
            before = (other.ids[-1], *other.tokens)
            self._said.update(zip(before, other.rows, strict=False))

    def reserve(self, request: Request, spare: int) -> bool:
        """See `Target`."""
        return True

    def num_unread(self, request: Request) -> int:
        """See `Target`."""
        return 0 if self._has_read else len(request.tokens) - 1

    def read(self, request: Request, max_rows: int) -> int:
        """See `Target`: all at once, in the time that it took."""
        with self._clock.instead(self._recordings[self._now].prefill_seconds):
            self._has_read = True
        return len(request.tokens) - 1

    def grow(self, request: Request, num_rows: int) -> int:
        """See `Target`."""
        return num_rows

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """See `Target`."""

    def free(self, request: Request) -> None:
        """See `Target`."""

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`."""
        ((request, tree),) = work
        rows, context = len(tree) + 1, len(request.tokens)
        self.forwards.append((rows, context))
        with self._clock.instead(self.cost(rows, context)):
            evict_caches(self.inner, self.cost(1, context))
            return [self._logits(request, tree)]

    def _logits(self, request: Request, tree: DraftTree) -> NDArray[np.float32]:
        recording = self._recordings[self._now]
        logits = np.zeros((len(tree) + 1, self.vocab_size), np.float32)
        places = [request.num_output_tokens]  # of each row in the recording; -1 beside it
        for token, parent in zip(tree.tokens, tree.parents, strict=True):
            place = places[parent + 1]
            is_said = 0 <= place < len(recording.tokens) and recording.tokens[place] == token
            places.append(place + 1 if is_said else -1)
        for row, place, token in zip(logits, places, (request.tokens[-1], *tree.tokens), strict=True):
            on_path = 0 <= place < len(recording.rows)
            thought = recording.rows[place] if on_path else self._said.get(token)
            if thought is not None:
                thought.write(row)
            if on_path and thought is not None:
                self._said[token] = thought
        return logits


class ToldSampler(Sampler):
    """A law that takes its time, and then says what it is told: of the logits only the likeliest are known."""

    def __init__(self, request: Request, vocab_size: int, tokens: Sequence[int]) -> None:
        context = SamplerContext(vocab_size, frozenset(), ())
        super().__init__(request.params, context, request.tokens, request.seed, 0, request.sampler.grammar)
        self._told = tokens
        self._num_told = 0

    def sample(self, logits: NDArray[np.float32]) -> SampledToken:
        """See `Sampler`."""
        choice = super().sample(logits)
        return replace(choice, token=self._told[self._num_told]) if self._num_told < len(self._told) else choice

    def advance(self, token: int) -> None:
        """See `Sampler`."""
        super().advance(token)
        self._num_told += 1


class ReplayEngine(Engine):
    """An engine whose requests are told what to say."""

    told: Sequence[int] = ()

    def add(self, request: Request, pacer: Pacer | None = None) -> None:
        """See `Engine`."""
        request.sampler = ToldSampler(request, self.target.vocab_size, self.told)
        super().add(request, pacer)


class Replayer:
    """Decodes recordings again, under plain decoding and under a pacer of its own."""

    def __init__(
        self, llm: LLM, recordings: Sequence[RecordedOutput], table: dict[int, ForwardCost], drafters: Drafters
    ) -> None:
        self._clock = ReplayClock()
        self._target = ReplayTarget(llm.target, recordings, self._clock)
        self._recordings = recordings
        self._pacer = AdaptivePacer(CostTable(table), clock=self._clock)
        self._engine = ReplayEngine(self._target, self._pacer, clock=self._clock)
        how: dict[str, Any] = {"drafters": drafters, "pacer": self._pacer, "engine": self._engine}
        self._llm = LLM.from_target(self._target, llm.tokenizer, info=llm.info, **how)

    def __enter__(self) -> Replayer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._llm.close()

    def plain(self, index: int, cost: Seconds) -> Replayed:
        """Without drafts."""
        return self._replay(index, cost, FixedPacer(0), "plain")

    def paced(self, index: int, cost: Seconds, turn: str) -> Replayed:
        """Under the pacer, which has learnt from all replays before; no drafter knows the answer from another turn."""
        return self._replay(index, cost, self._pacer, turn)

    def _replay(self, index: int, cost: Seconds, pacer: Pacer, turn: str) -> Replayed:
        recording = self._recordings[index]
        self._target.cost = cost
        self._target.play(index)
        self._engine.told = recording.tokens
        output = self._llm.generate(
            list(recording.ids),
            prediction=recording.question.prediction,
            tenant=f"{turn}, {recording.question.category}",
            pacer=pacer,
            **recording.sampling,
        )
        assert output.token_ids == recording.tokens  # it ended where it did
        host = output.stats.decode_seconds - output.stats.forward_seconds
        return Replayed(tuple(self._target.forwards), host, output.stats)
