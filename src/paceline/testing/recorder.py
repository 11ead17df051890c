"""A record of decoding: the token and a digest of the logits behind it, for each request, beside what was expected.

A pacer sees every step, so the recorder is one: `LLM.generate(..., pacer=Recorder(pacer))`. Knows nothing of models.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Pacer, StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.sampling.sampler import Sampler
from paceline.testing.wrapped import WrappedPacer

_MAX_DEPTH = 6


@dataclass
class Trace:
    """One output: its tokens, a digest of the logits behind each, and the logits too where they are kept."""

    tokens: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    rows: list[NDArray[np.float32]] = field(default_factory=list)  # (V,) each
    num_steps: int = 0
    num_drafts: int = 0
    num_accepted: int = 0
    law: Sampler | None = None  # as it began, where rows are kept

    def tail(self, start: int, count: int) -> Trace:
        """What is expected of a request for `count` tokens that has the first `start` in its prompt."""
        return Trace(self.tokens[start : start + count], self.digests[start : start + count])


@dataclass(frozen=True)
class StepWork:
    """What one request brought to a step: its tokens before it, and its draft tree."""

    tokens: tuple[int, ...]
    tree: DraftTree
    source: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mismatch:
    """The first decision of a request that is not the expected one, and the step in which it was made."""

    request: int  # in order of arrival
    index: int  # of the output token
    num_prompt_tokens: int
    token: int
    expected_token: int | None  # None: the expected output had ended
    has_equal_bits: bool
    row: NDArray[np.float32]  # (V,) the logits that the token was chosen from
    step: tuple[StepWork, ...]  # of every request that took part
    place: int  # the request's in `step`
    node: int  # row of the tree: -1 is the pending token's


class Recorder(WrappedPacer):
    """Writes down what each request emits, in order of arrival, and changes nothing."""

    def __init__(self, inner: Pacer) -> None:
        super().__init__(inner)
        self.restart()

    def restart(self, expected: Sequence[Trace] = (), keep_rows: bool = False) -> None:
        """Begin anew; the request that arrives i-th is expected to be the i-th of `expected`, as far as that goes."""
        self.traces: list[Trace] = []
        self.mismatches: list[Mismatch] = []  # at most one for each request, in order of time
        self._expected, self._keep_rows = expected, keep_rows
        self._of_request: dict[int, int] = {}

    def arrive(self, request: Request) -> None:
        """See `Pacer`."""
        super().arrive(request)
        self._of_request[request.id] = len(self.traces)
        self.traces.append(Trace())

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        super().start(request, prefill)
        if self._keep_rows:
            self.traces[self._of_request[request.id]].law = copy.deepcopy(request.sampler)

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        for place, outcome in enumerate(outcomes):
            self._note(outcomes, place, outcome)
        super().observe(outcomes, times)

    def _note(self, outcomes: Sequence[StepOutcome], place: int, outcome: StepOutcome) -> None:
        number = self._of_request[outcome.request.id]
        trace = self.traces[number]
        trace.num_steps += 1
        trace.num_drafts += len(outcome.tree)
        trace.num_accepted += outcome.num_accepted_drafts
        nodes = [-1, *outcome.path][: len(outcome.tokens)]
        for token, node in zip(outcome.tokens, nodes, strict=True):
            row = outcome.logits[node + 1]
            trace.tokens.append(token.id)
            trace.digests.append(digest(row))
            if self._keep_rows:
                trace.rows.append(row.copy())
            if number < len(self._expected) and all(m.request != number for m in self.mismatches):
                self._compare(number, outcomes, place, node)

    def _compare(self, number: int, outcomes: Sequence[StepOutcome], place: int, node: int) -> None:
        trace, expected = self.traces[number], self._expected[number]
        index = len(trace.tokens) - 1
        goes_on = index < len(expected.tokens)
        is_same = goes_on and trace.digests[index] == expected.digests[index]
        if is_same and trace.tokens[index] == expected.tokens[index]:
            return
        works = tuple(
            StepWork(tuple(o.request.tokens[: -len(o.tokens) or None]), o.tree, o.request.source) for o in outcomes
        )
        self.mismatches.append(
            Mismatch(
                number,
                index,
                outcomes[place].request.num_prompt_tokens,
                trace.tokens[index],
                expected.tokens[index] if goes_on else None,
                is_same,
                outcomes[place].logits[node + 1].copy(),
                works,
                place,
                node,
            )
        )


def digest(row: NDArray[np.float32]) -> bytes:
    """16 bytes that stand for a row's bits."""
    return hashlib.sha256(row.tobytes()).digest()[:16]


def prompt_of(request: Request) -> tuple[int, ...]:
    """The tokens that were asked about: those that a request began with, or its source."""
    return request.source or tuple(request.tokens[: request.num_prompt_tokens])


class RandomTrees:
    """Grows trees that know the true continuation, and spoil it; by prompt, seeded."""

    def __init__(self, expected: Mapping[tuple[int, ...], Sequence[int]], vocab_size: int, seed: int = 0) -> None:
        self._expected = expected
        self._vocab_size = vocab_size
        self._rng = np.random.default_rng(seed)

    def grow(self, request: Request, budget: int) -> DraftTree:
        """A path along the true continuation with wrong siblings and wrong ends."""
        builder = TreeBuilder("random trees")
        rest = self._expected[prompt_of(request)][request.num_output_tokens :]
        parent = -1
        for token in rest[: int(self._rng.integers(0, _MAX_DEPTH + 1))]:
            wrong = [(token + int(self._rng.integers(1, 50))) % self._vocab_size for _ in range(2)]
            above = parent
            for child in self._rng.permutation([token, *wrong[: self._rng.integers(0, 3)]]):
                if len(builder) < budget:
                    node = builder.add(above, int(child), float(self._rng.uniform(0.5, 1.0)), 0)
                    parent = node if child == token else parent
            if parent == above:
                break
        return builder.build()
