"""The pacer: asks drafters while it pays, gives rows to drafts while it pays, and spends only what has been earned.

Each step has a plan (plan.py), made of what drafters have been seen to bring and take (estimates.py) and of what rows
cost (costs.py), within the request's balance (guard.py). Afterwards the pacer learns from what the step came to.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from paceline.engine.ports import Ask, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import EMPTY, MAX_DEPTH, DraftTree
from paceline.pacing.costs import CostTable, Quantile
from paceline.pacing.estimates import SHARED_MEMORY, DrafterStatistics, RequestState, SuccessCounts
from paceline.pacing.guard import Account
from paceline.pacing.measuring import time_drafter
from paceline.pacing.plan import Candidates, Plan, distinct

MAX_SLOWDOWN = 0.02
_GUESS = 1e-4  # seconds that a drafter takes which could not be timed when it joined
_EARNING = 0.9  # of the allowed slowdown: what the balance grows by while nobody is asked
_SELDOM = 4  # idle steps to one that is learnt from
_PROBING = 0.5  # of the allowed slowdown: what asking drafters that do not pay may cost together


class AdaptivePacer(Pacer):
    """Decides by measured cost and calibrated estimates, so that decoding loses at most ε against plain decoding.

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
        guess = min(_GUESS, costs.plain(1, 0) / 2)
        self._counts = SuccessCounts(SHARED_MEMORY)
        self._statistics: dict[str, DrafterStatistics] = defaultdict(lambda: DrafterStatistics(guess))
        self._max_slowdown, self._budget, self._clock = max_slowdown, budget, clock
        self._overhead = Quantile(1e-4, 0.75)  # seconds that pacing takes in a step with proposals
        self._idle_overhead = Quantile(1e-5, 0.5)  # the same where nobody is asked
        self._num_idle = 0  # steps
        self._states: dict[int, RequestState] = {}  # by request id
        self._plan: Plan | None = None  # this step's, from `draft` to `observe`; None if it is idle

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""
        if drafter.name not in self._statistics:
            time_drafter(drafter, target, self.costs.plain(1, 0), self._statistics[drafter.name], self._clock)

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        plain = self.costs.plain(1, len(request.tokens))
        account = Account(self._max_slowdown, plain)
        account.book(elapsed=prefill, estimate=prefill, plain=prefill)
        self._states[request.id] = RequestState(request, account, plain, self._counts, self._statistics)

    def draft(self, requests: Sequence[Request], max_nodes: int, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        self._plan = None  # the last step may have failed before it was observed
        states = [self._states[request.id] for request in requests]
        if not any(r.drafters and r.num_output_tokens >= s.next_ask for r, s in zip(requests, states, strict=True)):
            return [EMPTY] * len(requests)
        budget, probe_seconds = min(self._budget, max_nodes), self._probe_seconds(requests)
        self._plan = plan = Plan(states, self.costs, self._clock, budget, self._overhead.value, probe_seconds)
        for drafter in plan.by_expected_saving():
            plan.ask(drafter, ask)
        return plan.trees()

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        plan, self._plan = self._plan, None
        if plan is None:
            self._observe_idle(outcomes, times)
        else:
            self._observe_plan(plan, outcomes, times)

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
        state = self._states.pop(request.id, None)
        if state is not None:
            request.stats.pacing = state.account.as_dict() | {"stops": dict(state.stops)}

    def account(self, request: Request) -> Account:
        """A running request's account."""
        return self._states[request.id].account

    def _observe_idle(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which nobody could be asked; few of them are learnt from, since that takes time."""
        self._num_idle += 1
        is_studied = self._num_idle % _SELDOM == 0
        if is_studied:
            self._learn_costs(outcomes, times)
        undrafted = times.observing - times.scoring
        own = times.scoring - times.drafting + self._clock() - times.observing
        overhead = self._idle_overhead.value
        for outcome in outcomes:
            state = self._states[outcome.request.id]
            state.stops["idle"] += 1
            state.account.book(own + undrafted, undrafted, undrafted, overhead)
            if is_studied:
                state.learn_rate(own + undrafted, len(outcome.tokens))
        if is_studied:
            self._idle_overhead.learn(own)

    def _observe_plan(self, plan: Plan, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which drafters could be asked, and learn from it."""
        rows, emitted = _totals(outcomes)
        has_drafts = rows > len(outcomes)
        undrafted = times.observing - times.scoring
        estimate = self.costs.forward(rows, plan.context) + emitted * self.costs.rest if has_drafts else undrafted
        plain = self.costs.plain(len(outcomes), plan.context)
        self._learn_costs(outcomes, times)
        for state, candidates, outcome in zip(plan.states, plan.candidates, outcomes, strict=True):
            self._learn(state, candidates, outcome, plain, times.committing - times.scoring)
        own = times.scoring - times.drafting + self._clock() - times.observing
        idle_overhead = self._idle_overhead.value
        if plan.has_asked:
            estimate, idle_overhead = estimate + plan.asking_estimate + plan.overhead, 0.0
            self._overhead.learn(own - plan.asking_seconds)
        for state, outcome in zip(plan.states, outcomes, strict=True):
            count = len(outcome.tokens)
            state.stops[plan.stop] += 1
            state.learn_rate(own + undrafted, count)
            state.account.book(own + undrafted, estimate, count * plain if has_drafts else undrafted, idle_overhead)

    def _learn_costs(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn what a forward, and the rest of a step, take."""
        rows, emitted = _totals(outcomes)
        context = max([len(outcome.request.tokens) - len(outcome.tokens) for outcome in outcomes])  # as it was scored
        self.costs.learn(rows, context, times.committing - times.scoring)
        self.costs.learn_rest((times.observing - times.committing) / max(emitted, 1))

    def _learn(
        self, state: RequestState, candidates: Candidates, outcome: StepOutcome, plain: float, forward: float
    ) -> None:
        """Judge the proposals, say who saved what, and plan when to ask again."""
        candidates.judge([token.id for token in outcome.tokens])
        stats, tree = outcome.request.stats, outcome.tree
        state.learn_max_nodes(len(tree), outcome.num_accepted_drafts)
        for source in tree.sources:
            stats.drafter(source).earned_seconds -= max(forward - plain, 0.0) / len(tree)
        for node in outcome.path[: outcome.num_accepted_drafts]:
            stats.drafter(tree.sources[node]).earned_seconds += plain
        state.next_ask = self._next_ask(state, plain)

    def _next_ask(self, state: RequestState, plain: float) -> int:
        """The output length from which a drafter is worth asking, or due, and the most promising one affordable.

        With the rows to try its drafts in, or asking it would be for nothing; while that is saved up, nobody is asked.
        """
        drafters, context = state.request.drafters, len(state.request.tokens)
        if not drafters:
            return 0
        price = state.first_seconds(max(drafters, key=state.expected_saving)) + self._overhead.value
        price += max(self.costs.forward(2, context) - plain, 0.0) + self.costs.rest
        probe_seconds = self._probe_seconds([state.request])
        due = min([state.due(d, d.expected_tokens, probe_seconds) for d in map(state.drafter, drafters)])
        return max(due, state.affordable(price, _EARNING * self._max_slowdown * plain))

    def _probe_seconds(self, requests: Sequence[Request]) -> float:
        """What asking a drafter may cost for each token although it does not pay."""
        plain = self.costs.plain(len(requests), max(len(request.tokens) for request in requests))
        return _PROBING * self._max_slowdown * plain / max(len(distinct(requests)), 1)


def _totals(outcomes: Sequence[StepOutcome]) -> tuple[int, int]:
    """Rows of a step's forward, and tokens that it emitted."""
    return sum([len(outcome.tree) + 1 for outcome in outcomes]), sum([len(outcome.tokens) for outcome in outcomes])
