"""The pacer: asks drafters while it pays, gives rows to drafts while it pays, and spends only what has been earned.

Who is worth asking (worth.py) is asked, in order, within the balance (guard.py); what they propose is believed as far
as they have deserved (beliefs.py) and merged; the likeliest nodes get rows as long as what a row costs (costs.py)
brings more tokens here than the same time would bring at the present rate (step.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from paceline.engine.ports import Ask, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import EMPTY, MAX_DEPTH, DraftTree
from paceline.pacing.base import distinct, room
from paceline.pacing.costs import CostTable
from paceline.pacing.growth import NOTHING
from paceline.pacing.guard import Account, Bill
from paceline.pacing.pace import Experience, Pace
from paceline.pacing.rehearsal import rehearse
from paceline.pacing.step import Drafting
from paceline.pacing.trackers import Quantile

MAX_SLOWDOWN = 0.02
_GUESS = 1e-4  # seconds that a drafter takes which rehearsal could not get to speak
_EARNING = 0.9  # of the allowed slowdown: what the balance grows by while nobody is asked
_SELDOM = 4  # steps in which everybody sleeps to one that is learnt from
_PROBING = 0.5  # of the allowed slowdown: what asking drafters that do not pay may cost together


class AdaptivePacer(Pacer):
    """Decides by measured cost and calibrated belief, so that decoding is never slower than plain but by ε.

    Args:
        costs: what forwards cost.
        max_slowdown: ε, the share by which decoding may be slower than plain decoding.
        budget: draft nodes per request and step, at most.
        clock: seconds, the engine's clock.
    """

    def __init__(
        self,
        costs: CostTable,
        max_slowdown: float = MAX_SLOWDOWN,
        budget: int = MAX_DEPTH,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.costs = costs
        self.experience = Experience(min(_GUESS, costs.plain(1, 0) / 2))
        self._max_slowdown, self._budget, self._clock = max_slowdown, budget, clock
        self._overhead = Quantile(1e-4, 0.75)  # seconds that pacing takes in a step with proposals
        self._looking_on = Quantile(1e-5, 0.5)  # the same where nobody is asked
        self._num_asleep = 0  # steps
        self._paces: dict[int, Pace] = {}
        self._drafting: Drafting | None = None  # this step's, if anybody was awake

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""
        if not self.experience.knows(drafter):
            rehearse(drafter, target, self.costs.plain(1, 0), self.experience.of(drafter), self._clock)

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        plain = self.costs.plain(1, len(request.tokens))
        account = Account(self._max_slowdown, plain)
        account.book(Bill(prefill, prefill, 0.0, prefill))
        self._paces[request.id] = Pace(self.experience, account, plain)

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
        pace = self._paces.pop(request.id, None)
        if pace is not None:
            request.stats.pacing = pace.account.as_dict() | {"stops": dict(pace.stops)}

    def account(self, request: Request) -> Account:
        """A running request's account."""
        return self._paces[request.id].account

    def draft(self, requests: Sequence[Request], most: int, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        self._drafting = None  # the last step may have failed before it was settled
        paces = [self._paces[request.id] for request in requests]
        if not any(r.drafters and r.num_output_tokens >= p.wake for r, p in zip(requests, paces, strict=True)):
            for pace in paces:
                pace.stops["asleep"] += 1
            return [EMPTY] * len(requests)
        limit = min(self._budget, most)
        rooms = [room(r, min(limit, p.reach)) for r, p in zip(requests, paces, strict=True)]
        overhead, share = self._overhead.value, self._share(requests)
        self._drafting = Drafting(requests, paces, rooms, self.costs, self._clock, overhead, share)
        for drafter in sorted(distinct(requests), key=lambda drafter: -sum([pace.promise(drafter) for pace in paces])):
            self._drafting.ask(drafter, ask)
        return self._drafting.sample()

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        drafting, self._drafting = self._drafting, None
        if drafting is None:
            self._look_on(outcomes, times)
        else:
            self._settle(drafting, outcomes, times)

    def _look_on(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which everybody slept; it is learnt from now and then only, since looking on takes time."""
        self._num_asleep += 1
        is_studied = self._num_asleep % _SELDOM == 0
        if is_studied:
            self._study(outcomes, times)
        undrafted = times.observing - times.scoring
        own = times.scoring - times.drafting + self._clock() - times.observing
        bill = Bill(own + undrafted, undrafted, self._looking_on.value, undrafted)
        for outcome in outcomes:
            self._paces[outcome.request.id].account.book(bill)
        if is_studied:
            self._looking_on.learn(own)
            for outcome in outcomes:
                self._paces[outcome.request.id].learn_rate(bill.elapsed, len(outcome.tokens))

    def _settle(self, drafting: Drafting, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which somebody was awake, and learn from it."""
        rows, emitted = _totals(outcomes)
        has_drafts = rows > len(outcomes)
        undrafted = times.observing - times.scoring
        believed = self.costs.forward(rows, drafting.context) + emitted * self.costs.rest if has_drafts else undrafted
        plain = self.costs.plain(len(outcomes), drafting.context)
        self._study(outcomes, times)
        for outcome in outcomes:
            self._learn(outcome, plain, times.committing - times.scoring)
        own = times.scoring - times.drafting + self._clock() - times.observing
        looking_on = self._looking_on.value
        if drafting.has_asked:
            believed, looking_on = believed + drafting.believed + drafting.overhead, 0.0
            self._overhead.learn(own - drafting.actual)
        for outcome in outcomes:
            pace, count = self._paces[outcome.request.id], len(outcome.tokens)
            bill = Bill(own + undrafted, believed, looking_on, count * plain if has_drafts else undrafted)
            pace.learn_rate(bill.elapsed, count)
            pace.account.book(bill)

    def _study(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn what a forward, and the rest of a step, take."""
        rows, emitted = _totals(outcomes)
        context = max([len(outcome.request.tokens) - len(outcome.tokens) for outcome in outcomes])  # as it was scored
        self.costs.learn(rows, context, times.committing - times.scoring)
        self.costs.learn_rest((times.observing - times.committing) / max(emitted, 1))

    def _learn(self, outcome: StepOutcome, plain: float, forward: float) -> None:
        """Judge the proposals, say who saved what, and plan when to ask again."""
        request, tree = outcome.request, outcome.tree
        pace = self._paces[request.id]
        growth, pace.growth = pace.growth, None
        assert growth is not None  # made with the step
        growth.judge(outcome)
        pace.learn_reach(len(tree), outcome.num_accepted_drafts)
        for source in tree.sources:
            request.stats.drafter(source).earned_seconds -= max(forward - plain, 0.0) / len(tree)
        for node in outcome.path[: outcome.num_accepted_drafts]:
            request.stats.drafter(tree.sources[node]).earned_seconds += plain
        pace.wake = self._wake(request, pace, plain)

    def _wake(self, request: Request, pace: Pace, plain: float) -> int:
        """The output length from which a drafter is worth asking, or due, and the most promising one affordable.

        With the rows to try its drafts in, or asking it would be for nothing; while that is saved up, nobody is asked.
        """
        if not request.drafters:
            return 0
        context, share = len(request.tokens), self._share([request])
        best = max(request.drafters, key=pace.promise)
        habit, cost = pace.habit(best)
        price = cost.asking(context - habit.read) + self._overhead.value
        price += max(self.costs.forward(2, context) - plain, 0.0) + self.costs.rest
        due = min([pace.due(request, drafter, NOTHING, share) for drafter in request.drafters])
        return max(due, pace.affordable(request, price, _EARNING * self._max_slowdown * plain))

    def _share(self, requests: Sequence[Request]) -> float:
        """Seconds per token that asking one drafter may cost although it does not pay."""
        plain = self.costs.plain(len(requests), max(len(request.tokens) for request in requests))
        return _PROBING * self._max_slowdown * plain / max(len(distinct(requests)), 1)


def _totals(outcomes: Sequence[StepOutcome]) -> tuple[int, int]:
    """Rows of a step's forward, and tokens that it emitted."""
    return sum([len(outcome.tree) + 1 for outcome in outcomes]), sum([len(outcome.tokens) for outcome in outcomes])
