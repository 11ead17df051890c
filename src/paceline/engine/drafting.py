"""An engine's dealings with drafters: it asks them, bills their time, and goes on without those that fail."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from paceline.engine.ports import Budget
from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.tree import EMPTY, MAX_NODES, DraftTree
from paceline.errors import DrafterError


class Drafting:
    """Calls drafters. One that raises or breaks its port is left out of the request: it must never kill one.

    Args:
        vocab_size: of the target.
        clock: seconds.
    """

    def __init__(self, vocab_size: int, clock: Callable[[], float]) -> None:
        self._vocab_size = vocab_size
        self._clock = clock
        self._asked: list[tuple[Drafter, Request]] = []  # in this step
        self._met: dict[int, Drafter] = {}  # by identity

    def begin_step(self) -> None:
        """Forget who was asked in the step before."""
        self._asked = []

    def start(self, request: Request) -> None:
        """Have a request's drafters take it up; those with nothing to do are not asked."""
        for drafter in request.drafters:
            self._met[id(drafter)] = drafter
            with self._guarded(drafter, [request]):
                if not drafter.start(request):
                    request.drafters = tuple(d for d in request.drafters if d is not drafter)

    def ask(self, drafter: Drafter, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        """A drafter's proposals; of one that fails empty ones, and it is left out of the requests."""
        self._asked += [(drafter, request) for request in requests]
        for request in requests:
            request.stats.drafter(drafter.name).num_proposals += 1
        with self._guarded(drafter, requests):
            trees = list(drafter.propose(requests, limits))
            for tree, limit in zip(trees, limits, strict=True):
                _check_proposal(drafter, tree, limit.max_nodes, self._vocab_size)
            return trees
        return [EMPTY] * len(requests)

    def observe(self, outcomes: Sequence[StepOutcome]) -> None:
        """Tell those that were asked what came of it."""
        of_request = {outcome.request.id: outcome for outcome in outcomes}
        for drafter, request in self._asked:
            if any(d is drafter for d in request.drafters):
                with self._guarded(drafter, [request]):
                    drafter.observe(of_request[request.id])

    def finish(self, request: Request) -> None:
        """Tell a request's drafters that it has ended."""
        for drafter in request.listeners:
            with self._guarded(drafter, [request]):
                drafter.finish(request)

    def rest(self) -> bool:
        """Have each drafter that was met do what can wait; whether one has more of it. Failures are nobody's."""
        has_more = False
        for drafter in self._met.values():
            with contextlib.suppress(Exception):
                rest = getattr(drafter, "rest", None)  # an object may have no more than the verbs of the port
                has_more = bool(rest is not None and rest()) or has_more
        return has_more

    def learnt(self) -> dict[str, int]:
        """What has become of learning while serving, over all drafters that were met."""
        counts: Counter[str] = Counter()
        for drafter in self._met.values():
            with contextlib.suppress(Exception):
                learnt = getattr(drafter, "learnt", None)
                counts.update({} if learnt is None else learnt())
        return dict(counts)

    @contextlib.contextmanager
    def _guarded(self, drafter: Drafter, requests: Sequence[Request]) -> Iterator[None]:
        """Bill a drafter's time, and go on without it if it fails."""
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


def budget_of(requests: Sequence[Request], max_rows: int) -> Budget:
    """Draft nodes of a step: what a forward of so many rows has room for beside the pending tokens."""
    total = max(max_rows - len(requests), 0)
    limits = [request.terms.num_speculative_tokens for request in requests]
    return Budget(total, tuple(min(total, MAX_NODES, MAX_NODES if n is None else n) for n in limits))


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
