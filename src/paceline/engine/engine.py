"""The step loop: schedule, draft, score, verify, commit, observe. There is one; an empty tree is plain decoding.

Knows nothing of text formats, models or HTTP. One thread at a time may call an engine.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Pacer, StepTimes, Target
from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.scheduler import Scheduler
from paceline.engine.trace import StepRecord
from paceline.engine.tree import EMPTY, DraftTree
from paceline.engine.verify import verify
from paceline.errors import DrafterError, EngineError, RequestError


class Engine:
    """Decodes requests together over one target. Between steps the target's cache holds `tokens[:-1]`."""

    def __init__(
        self, target: Target, pacer: Pacer, max_running: int = 32, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.target = target
        self.pacer = pacer
        self._clock = clock
        self._asked: list[tuple[Drafter, Request]] = []  # in this step
        self._pacers: dict[int, Pacer] = {}  # by request id
        self.scheduler = Scheduler(max_running)

    def add(self, request: Request, pacer: Pacer | None = None) -> None:
        """Queue a request; its tokens arrive in its `outbox` as steps are taken.

        `pacer` in place of the engine's own. Those that run together have one pacer: a request with another waits.
        """
        if pacer is not None:
            for drafter in request.drafters:
                pacer.attach(drafter, self.target)
        self._pacers[request.id] = pacer or self.pacer
        self.scheduler.add(request)

    def step(self) -> list[StepOutcome]:
        """Advance every running request by at least one token: one draft, one forward, one verification.

        A step that fails ends the requests that took part in it with an `EngineError` each, since their laws may have
        moved on without their tokens; the next step goes on with the others. An interruption (Ctrl-C) does so too,
        and goes on to the caller.
        """
        try:
            self.sweep()
            for request in self.scheduler.admit(self._may_start):
                self._admit(request)
            if not self.scheduler.running and self.scheduler.waiting:
                self.fail(self.scheduler.waiting[:1], RequestError("nothing runs, and the cache has no room for it"))
            return self._step(list(self.scheduler.running))
        except Exception as error:
            self.fail(self.scheduler.running, error)
            return []
        except BaseException as error:
            self.fail(self.scheduler.running, error)
            raise

    def _may_start(self, request: Request) -> bool:
        running = self.scheduler.running
        is_paced_alike = not running or self._pacer_of(request) is self._pacer_of(running[0])
        return is_paced_alike and self.target.reserve(request)

    def _pacer_of(self, request: Request) -> Pacer:
        return self._pacers[request.id]

    def _admit(self, request: Request) -> None:
        """Begin a request; one whose prompt cannot be read fails alone."""
        try:
            self._start(request)
        except Exception as error:
            self.fail([request], error)

    def fail(self, requests: Sequence[Request], error: BaseException) -> None:
        """End requests with an error of their own each, which keeps the cause."""
        for request in list(requests):
            if request.is_cancelled:
                request.abandon()
            elif request.finish_reason is None:
                failure = EngineError(f"request {request.id} ended with a step that failed: {error!r}")
                failure.__cause__ = error
                request.fail(failure)
            self._finish(request)

    def _step(self, requests: Sequence[Request]) -> list[StepOutcome]:
        if not requests:
            return []
        self._asked = []
        drafting = self._clock()
        pacer = self._pacer_of(requests[0])
        trees = pacer.draft(requests, self.target.max_budget(len(requests)), self._ask)
        scoring = self._clock()
        scores = self.target.score(list(zip(requests, trees, strict=True)))
        committing = self._clock()
        outcomes = [self._commit(*work) for work in zip(requests, trees, scores, strict=True)]
        self._learn(outcomes, StepTimes(drafting, scoring, committing, self._clock()), pacer)
        return outcomes

    def abort(self, request: Request) -> None:
        """Stop a request wherever it is and give back all it holds; does nothing if it has been released."""
        if request in self.scheduler:
            request.abandon()
            self._finish(request)

    def sweep(self) -> None:
        """Stop those requests whose callers have given them up."""
        for request in [*self.scheduler.running, *self.scheduler.waiting]:
            if request.is_cancelled:
                self.abort(request)

    def _start(self, request: Request) -> None:
        started = self._clock()
        self.target.prefill(request)
        self._pacer_of(request).start(request, self._clock() - started)
        for drafter in request.drafters:
            with self._guarded(drafter, [request]):
                if not drafter.start(request):
                    request.drafters = tuple(d for d in request.drafters if d is not drafter)
        request.stats.prefill_seconds = self._clock() - started

    def _ask(self, drafter: Drafter, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """A drafter's proposals; of one that fails empty ones, and it is left out of the requests."""
        self._asked += [(drafter, request) for request in requests]
        for request in requests:
            request.stats.drafter(drafter.name).num_proposals += 1
        with self._guarded(drafter, requests):
            trees = list(drafter.propose(requests, limits))
            for tree, limit in zip(trees, limits, strict=True):
                _check_proposal(drafter, tree, limit.max_nodes, self.target.vocab_size)
            return trees
        return [EMPTY] * len(requests)

    def _commit(self, request: Request, tree: DraftTree, logits: NDArray[np.float32]) -> StepOutcome:
        """Verify a tree and commit what the target says; a request that cannot go on fails alone."""
        try:
            verdict = verify(tree, logits, request.sampler)
        except RequestError as error:
            request.fail(error)
            return StepOutcome(request, tree, (), (), logits)
        sources = [*(tree.sources[node] for node in verdict.path), "target"]
        tokens = request.commit(verdict.sampled, sources)
        if request.finish_reason is None:
            self.target.commit(request, verdict.path)
        accepted = [tree.sources[node] for node in verdict.path[: len(tokens)]]
        outcome = StepOutcome(request, tree, verdict.path, tokens, logits)
        request.stats.observe(list(tree.sources), accepted, len(tokens), outcome.num_evaluated_drafts)
        return outcome

    def _learn(self, outcomes: Sequence[StepOutcome], times: StepTimes, pacer: Pacer) -> None:
        """Tell the drafters that were asked, the pacer and the statistics; release what has ended."""
        of_request = {outcome.request.id: outcome for outcome in outcomes}
        for drafter, request in self._asked:
            if any(d is drafter for d in request.drafters):
                with self._guarded(drafter, [request]):
                    drafter.observe(of_request[request.id])
        pacer.observe(outcomes, times)
        for outcome in outcomes:
            stats = outcome.request.stats
            stats.forward_seconds += times.committing - times.scoring
            now = self._clock()
            stats.decode_seconds += now - times.drafting
            outcome.request.trace.append(_record(outcome, times, now))
            if outcome.request.finish_reason is not None:
                self._finish(outcome.request)

    def _finish(self, request: Request) -> None:
        for drafter in request.listeners:
            with self._guarded(drafter, [request]):
                drafter.finish(request)
        self._pacers.pop(request.id, self.pacer).finish(request)
        self.target.free(request)
        self.scheduler.remove(request)

    @contextlib.contextmanager
    def _guarded(self, drafter: Drafter, requests: Sequence[Request]) -> Iterator[None]:
        """Bill a drafter's time, and go on without it if it fails: a drafter must never kill a request."""
        started = self._clock()
        try:
            yield
        except Exception as error:
            for request in requests:
                self._dismiss(drafter, request, error)
        finally:
            seconds = (self._clock() - started) / len(requests)
            for request in requests:
                request.stats.drafter(drafter.name).seconds += seconds

    def _dismiss(self, drafter: Drafter, request: Request, error: Exception) -> None:
        """Go on without a drafter that failed: the request is decoded as if it had never been there."""
        request.drafters = tuple(d for d in request.drafters if d is not drafter)
        request.listeners = tuple(d for d in request.listeners if d is not drafter)
        with contextlib.suppress(Exception):  # it has failed already; let it free what it can
            drafter.finish(request)
        request.stats.drafter(drafter.name).num_failures += 1
        warnings.warn(
            f"drafter {drafter.name!r} failed and is left out of request {request.id}: {error!r}",
            stacklevel=2,
        )


def _record(outcome: StepOutcome, times: StepTimes, end: float) -> StepRecord:
    seconds = (times.scoring - times.drafting, times.committing - times.scoring, end - times.committing)
    return StepRecord(outcome.tree, outcome.path, len(outcome.tokens), *seconds)


def _check_proposal(drafter: Drafter, tree: DraftTree, max_nodes: int, vocab_size: int) -> None:
    """Refuse a tree that breaks the port."""
    size = len(tree)
    if not len(tree.parents) == len(tree.scores) == len(tree.sources) == size:
        raise DrafterError(f"drafter {drafter.name!r} proposed a tree whose fields differ in length")
    if size > max_nodes:
        raise DrafterError(f"drafter {drafter.name!r} proposed {size} nodes; allowed: {max_nodes}")
    for node in range(size):
        if not -1 <= tree.parents[node] < node:
            raise DrafterError(f"drafter {drafter.name!r} proposed a node that stands before its parent")
        if not 0 <= tree.scores[node] <= 1:
            raise DrafterError(f"drafter {drafter.name!r} proposed a score that is no probability")
        if not 0 <= tree.tokens[node] < vocab_size:
            raise DrafterError(f"drafter {drafter.name!r} proposed a token outside the vocabulary of {vocab_size}")
