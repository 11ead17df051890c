"""A turn: what vLLM's step came to, then drafts for its next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.cache import cache_file
from paceline.engine.drafting import Drafting, budget_of
from paceline.engine.ports import StepTimes
from paceline.engine.request import Environment, Request, StepOutcome
from paceline.engine.tree import EMPTY
from paceline.pacing import AdaptivePacer
from paceline.vllm.costs import OpeningCosts
from paceline.vllm.facts import Facts
from paceline.vllm.following import Followed, Following
from paceline.vllm.metrics import Metrics
from paceline.vllm.runner import Runner
from paceline.vllm.settings import Settings, made

# vLLM's users look at what all requests get together: one may wait for the others' drafts as long as these save more.
_CAP = 0.5
_NOTHING = 1e-9  # seconds: of reading, where an estimate says none


class Turns:
    """Drafting beside vLLM's loop.

    Args:
        facts: about its engine.
        runner: a view of its model runner.
        settings: the operator's.
        metrics: told what was done.
        clock: seconds.
    """

    def __init__(
        self,
        facts: Facts,
        runner: Runner,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._facts, self._runner, self._settings, self._clock = facts, runner, settings, clock
        self._metrics = metrics
        self._drafters = made(settings.drafters)
        for drafter in self._drafters:
            drafter.attach(Environment(facts.tokenizer, facts.vocab_size, "cpu"))
        self._following = Following(runner, self._drafters, facts)
        self._drafting = Drafting(facts.vocab_size, clock)
        self._opening = OpeningCosts(cache_file("costs", facts.identity), facts.max_rows)
        self._pacer: AdaptivePacer | None = None  # until costs are known
        self._drafted: list[Request] = []  # those that drafts were last made for, be it none
        self._began = self._returned = clock()  # when that was

    def take(
        self,
        sampled: Sequence[Sequence[int]],
        lengths: NDArray[np.integer[Any]],
        tokens: NDArray[np.integer[Any]],
        called: float,
    ) -> list[list[int]]:
        """See `Drafter.propose`; `called` is when vLLM had done its step."""
        for request in self._following.gone():
            self._finish(request)
        rows: list[Followed | None] = []
        outcomes: dict[int, StepOutcome] = {}  # by request id
        for row, name in enumerate(self._runner.rows()[: len(sampled)]):
            one, new = self._following.row(name, tokens[row, : lengths[row]])
            rows.append(one if new else None)
            if one is not None and new:
                outcomes[one.request.id] = self._take(one, new)
        came = [outcomes[request.id] for request in self._drafted if request.id in outcomes]
        if len(came) == len(self._drafted) > 0:  # else some left unforeseen: a stop string, a client that went
            self._learn(came, called, is_alone=len(came) == len(rows))
        drafts = self._draft(rows)
        self._metrics.observed(list(outcomes.values()), self._returned - called)
        return drafts

    def close(self) -> None:
        """Keep what was learnt."""
        if self._pacer is not None:
            self._pacer.close()
        for drafter in self._drafters:
            drafter.close()

    def _take(self, one: Followed, new: Sequence[int]) -> StepOutcome:
        """A row's new tokens; a request whose prompt has been read is taken up."""
        is_new = not one.request.num_output_tokens
        outcome = one.take(new)
        if is_new:
            self._start(one.request)
        return outcome

    def _start(self, request: Request) -> None:
        self._drafting.start(request)
        if self._pacer is not None:
            self._pacer.start(request, 0.0)

    def _finish(self, request: Request) -> None:
        self._drafting.finish(request)
        if self._pacer is not None:
            self._pacer.finish(request)
            self._pacer.rest()
        self._metrics.finished(request)

    def _learn(self, outcomes: Sequence[StepOutcome], called: float, is_alone: bool) -> None:
        """Learn from a step: of those that were drafted for alone, or with prompts read beside them."""
        if self._pacer is None:
            if is_alone:
                self._open(len(outcomes), called - self._returned)
            return
        reading = 0.0
        if not is_alone:
            forward = self._pacer.costs.forward(*_rows_and_context(outcomes))
            reading = max(called - self._returned - forward, _NOTHING)
        self._drafting.observe(outcomes)
        times = StepTimes(self._began, self._returned, called, self._clock(), reading=reading)
        self._pacer.observe(outcomes, times)

    def _open(self, num_rows: int, seconds: float) -> None:
        """Have a pacer as soon as costs are known."""
        costs = self._opening.learn(num_rows, seconds)
        if costs is None:
            return
        file = cache_file("pacing", self._facts.identity)
        slowdown, num_drafts = self._settings.max_slowdown, self._facts.num_drafts
        self._pacer = AdaptivePacer(costs, slowdown, num_drafts, self._clock, file, _CAP)
        for one in self._following.all():
            if one.request.num_output_tokens:
                self._pacer.start(one.request, 0.0)

    def _draft(self, rows: Sequence[Followed | None]) -> list[list[int]]:
        """Drafts for each row of the next step."""
        self._began = self._clock()
        for one in self._following.all():
            one.tree = EMPTY
        going = [one for one in rows if one is not None and one.request.finish_reason is None]
        self._drafted = [one.request for one in going]
        if self._pacer is not None and going:
            self._drafting.begin_step()
            budget = budget_of(self._drafted, self._facts.max_rows)._replace(is_chain=True)
            trees = self._pacer.draft(self._drafted, budget, self._drafting.ask)
            for one, tree in zip(going, trees, strict=True):
                one.tree = tree
        drafts = [list(one.tree.tokens) if one is not None else [] for one in rows]
        self._returned = self._clock()
        return drafts


def _rows_and_context(outcomes: Sequence[StepOutcome]) -> tuple[int, int]:
    rows = sum(len(outcome.tree) + 1 for outcome in outcomes)
    return rows, max(len(outcome.request.tokens) - len(outcome.tokens) for outcome in outcomes)
