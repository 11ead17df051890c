"""The step loop: schedule, draft, score, verify, commit, observe. There is one; an empty tree is plain decoding.

Knows nothing of text formats, models or HTTP. One thread at a time may call an engine.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.errors import DrafterError, RequestError
from paceline.pacer import FixedPacer
from paceline.request import Request
from paceline.scheduler import Scheduler
from paceline.tree import EMPTY, MAX_DEPTH, merge
from paceline.types import Drafter, DraftTree, StepOutcome, Target
from paceline.verify import walk


class Engine:
    """Decodes requests together over one target. Between steps the target's cache holds `tokens[:-1]`."""

    def __init__(self, target: Target, pacer: FixedPacer, max_running: int = 32) -> None:
        self.target = target
        self.pacer = pacer
        self.scheduler = Scheduler(max_running)

    def add(self, request: Request) -> None:
        """Queue a request; its tokens arrive in its `outbox` as steps are taken."""
        self.scheduler.add(request)

    def step(self) -> list[StepOutcome]:
        """Advance every running request by at least one token: one draft, one forward, one verification.

        A step that is interrupted (Ctrl-C, no memory) aborts the requests it was working on: their laws may have
        moved on without their tokens.
        """
        try:
            return self._step()
        except BaseException:
            for request in list(self.scheduler.running):
                self.abort(request)
            raise

    def _step(self) -> list[StepOutcome]:
        for request in self.scheduler.admit(self.target.reserve):
            self._start(request)
        requests = list(self.scheduler.running)
        if not requests:
            if not self.scheduler.is_idle:
                raise RequestError("nothing runs, and the cache has no room for the request that waits")
            return []
        started = time.perf_counter()
        trees = self._draft(requests)
        scoring = time.perf_counter()
        scores = self.target.score(list(zip(requests, trees, strict=True)))
        scored = time.perf_counter()
        outcomes = [self._commit(*work) for work in zip(requests, trees, scores, strict=True)]
        for outcome in outcomes:
            self._observe(outcome)
        for request in requests:
            request.stats.forward_seconds += scored - scoring
            request.stats.decode_seconds += time.perf_counter() - started
        return outcomes

    def abort(self, request: Request) -> None:
        """Stop a request wherever it is and give back all it holds; does nothing if it has been released."""
        if request in self.scheduler:
            request.finish_reason = request.finish_reason or "abort"
            self._finish(request)

    def _start(self, request: Request) -> None:
        started = time.perf_counter()
        self.target.prefill(request)
        for drafter in request.drafters:
            self._guarded(drafter, request, lambda d: d.start(request))
        request.stats.prefill_seconds = time.perf_counter() - started

    def _draft(self, requests: Sequence[Request]) -> list[DraftTree]:
        """One merged tree per request, within its budget."""
        budgets = self.pacer.budgets(requests, self.target.max_budget(len(requests)))
        proposals: list[list[DraftTree]] = [[] for _ in requests]
        for drafter in {id(d): d for r in requests for d in r.drafters}.values():  # each once, in order
            asked = [i for i, r in enumerate(requests) if budgets[i] > 0 and any(d is drafter for d in r.drafters)]
            if asked:
                trees = self._propose(drafter, [requests[i] for i in asked], [budgets[i] for i in asked])
                for i, tree in zip(asked, trees, strict=True):
                    proposals[i].append(tree)
        return [
            # The last token of a request is never a draft, and no row may stand beyond the model's context.
            merge(trees, budget, min(MAX_DEPTH, request.num_remaining - 1)) if trees else EMPTY
            for request, trees, budget in zip(requests, proposals, budgets, strict=True)
        ]

    def _propose(self, drafter: Drafter, requests: list[Request], budgets: list[int]) -> list[DraftTree]:
        started = time.perf_counter()
        try:
            trees = drafter.propose(requests, budgets)
            for tree, budget in zip(trees, budgets, strict=True):
                _check_proposal(drafter, tree, budget, self.target.vocab_size)
        except Exception as error:  # a drafter must never kill a request
            for request in requests:
                self._dismiss(drafter, request, error)
            return [EMPTY] * len(requests)
        seconds = (time.perf_counter() - started) / len(requests)
        for request in requests:
            request.stats.drafter(drafter.name).seconds += seconds
        return trees

    def _commit(self, request: Request, tree: DraftTree, logits: NDArray[np.float32]) -> StepOutcome:
        """Verify a tree and commit what the target says; a request that cannot go on fails alone."""
        try:
            verdict = walk(tree, logits, request.law)
        except RequestError as error:
            request.fail(error)
            return StepOutcome(request, tree, (), ())
        sources = [*(tree.sources[node] for node in verdict.path), "target"]
        tokens = request.commit(verdict.choices, sources)
        if request.finish_reason is None:
            self.target.commit(request, verdict.path)
        return StepOutcome(request, tree, verdict.path, tokens)

    def _observe(self, outcome: StepOutcome) -> None:
        request, tree = outcome.request, outcome.tree
        accepted = [tree.sources[node] for node in outcome.path[: outcome.num_accepted_drafts]]
        request.stats.observe(list(tree.sources), accepted, len(outcome.tokens))
        for drafter in request.drafters:
            self._guarded(drafter, request, lambda d: d.observe(outcome))
        if request.finish_reason is not None:
            self._finish(request)

    def _finish(self, request: Request) -> None:
        for drafter in request.drafters:
            self._guarded(drafter, request, lambda d: d.finish(request))
        self.target.free(request)
        self.scheduler.remove(request)

    def _guarded(self, drafter: Drafter, request: Request, action: Callable[[Drafter], None]) -> None:
        started = time.perf_counter()
        try:
            action(drafter)
        except Exception as error:  # a drafter must never kill a request
            self._dismiss(drafter, request, error)
        request.stats.drafter(drafter.name).seconds += time.perf_counter() - started

    def _dismiss(self, drafter: Drafter, request: Request, error: Exception) -> None:
        """Go on without a drafter that failed: the request is decoded as if it had never been there."""
        request.drafters = tuple(d for d in request.drafters if d is not drafter)
        with contextlib.suppress(Exception):  # it has failed already; let it free what it can
            drafter.finish(request)
        request.stats.drafter(drafter.name).num_failures += 1
        warnings.warn(
            f"drafter {drafter.name!r} failed and is left out of request {request.id}: {error!r}",
            stacklevel=2,
        )


def _check_proposal(drafter: Drafter, tree: DraftTree, budget: int, vocab_size: int) -> None:
    size = len(tree)
    if not len(tree.parents) == len(tree.scores) == len(tree.sources) == size:
        raise DrafterError(f"drafter {drafter.name!r} proposed a tree whose fields differ in length")
    if size > budget:
        raise DrafterError(f"drafter {drafter.name!r} proposed {size} nodes; its budget was {budget}")
    if any(not -1 <= parent < node for node, parent in enumerate(tree.parents)):
        raise DrafterError(f"drafter {drafter.name!r} proposed a node that stands before its parent")
    if any(not 0 <= score <= 1 for score in tree.scores):
        raise DrafterError(f"drafter {drafter.name!r} proposed a score that is no probability")
    if any(not 0 <= token < vocab_size for token in tree.tokens):
        raise DrafterError(f"drafter {drafter.name!r} proposed a token outside the vocabulary of {vocab_size}")
