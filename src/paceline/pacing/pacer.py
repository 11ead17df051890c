"""The pacer: asks drafters while it pays, gives rows to drafts while it pays, and spends only what has been earned.

Each step has a plan (plan.py), made of what drafters have been seen to bring and take (estimates.py) and of what rows
cost (costs.py), within the request's balance (guard.py). Afterwards the pacer learns from what the step came to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from paceline.cache import read_json, write_json
from paceline.engine.ports import Ask, Budget, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import EMPTY, MAX_DEPTH, DraftTree
from paceline.pacing.candidates import Candidates
from paceline.pacing.costs import CostTable
from paceline.pacing.estimates import RequestState
from paceline.pacing.experience import Experience
from paceline.pacing.guard import Account, Guard
from paceline.pacing.measuring import time_drafter
from paceline.pacing.plan import Plan, distinct, entry_seconds

MAX_SLOWDOWN = 0.02
_GUESS = 1e-4  # seconds that a drafter takes which could not be timed when it joined
_KEEP_SECONDS = 10.0  # at least, between two times that what was learnt is kept, but for the end
_SELDOM = 4  # idle steps to one that is learnt from
_PROBING = 0.5  # of the allowed slowdown: what asking drafters that do not pay may cost together


class AdaptivePacer(Pacer):
    """Decides by measured cost and calibrated estimates, so that decoding loses at most ε against plain decoding.

    Args:
        costs: what forwards cost.
        max_slowdown: ε, the share by which decoding may be slower than plain decoding.
        budget: draft nodes per request and step, at most.
        clock: seconds, the engine's clock.
        file: where what was learnt is kept for the next process; None keeps nothing.
        cap: δ, by what share a single request may be slower, its neighbours' drafts included; None: see guard.py.
    """

    def __init__(
        self,
        costs: CostTable,
        max_slowdown: float = MAX_SLOWDOWN,
        budget: int = MAX_DEPTH,
        clock: Callable[[], float] = time.perf_counter,
        file: Path | None = None,
        cap: float | None = None,
    ) -> None:
        self.costs = costs
        plain = costs.plain(1, 0)
        self.guard = Guard(max_slowdown, plain, cap)
        self.experience = Experience(min(_GUESS, plain / 2), None if file is None else read_json(file))
        self._file, self._kept_at = file, -_KEEP_SECONDS
        self._max_slowdown, self._budget, self._clock = max_slowdown, budget, clock
        self._num_idle = 0  # steps
        self._has_learnt = False  # anything that is not in the file
        self._states: dict[int, RequestState] = {}  # by request id
        self._plan: Plan | None = None  # this step's, from `draft` to `observe`; None if it is idle

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""
        if not self.experience.meet(drafter):
            known = self.experience.drafters[drafter.name]
            time_drafter(drafter, target, self.costs.plain(1, 0), known, self._clock)

    def arrive(self, request: Request) -> None:
        """See `Pacer`."""

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        plain = self.costs.plain(1, len(request.tokens))
        for drafter in request.drafters:
            self.experience.meet(drafter)
        self.guard.start(request, prefill, plain)
        self._states[request.id] = RequestState(request, plain, self.experience.counts, self.experience.drafters)

    def resume(self, request: Request, prefill: float) -> None:
        """See `Pacer`. Plain decoding would be preempted too."""
        self.guard.book_reading(request, prefill)

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        self._plan = None  # the last step may have failed before it was observed
        states = [self._states[request.id] for request in requests]
        allowance = self.guard.allowance(requests)
        if not any(state.may_ask(allowance) for state in states):
            return [EMPTY] * len(requests)
        within = budget._replace(each=tuple(min(self._budget, most) for most in budget.each))
        overhead, probe_seconds = self.experience.overhead.value, self._probe_seconds(requests)
        self._plan = plan = Plan(states, self.costs, self._clock, within, overhead, probe_seconds, allowance)
        for drafter in plan.by_expected_saving():
            plan.ask(drafter, ask)
        return plan.trees()

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        plan, self._plan = self._plan, None
        self._has_learnt = True
        if plan is None:
            self._observe_idle(outcomes, times)
        else:
            self._observe_plan(plan, outcomes, times)

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
        state = self._states.pop(request.id, None)
        account = self.guard.finish(request)
        if state is not None and account is not None:
            request.stats.pacing = account.as_dict() | {"stops": dict(state.stops)}

    def rest(self) -> None:
        """See `Pacer`: keeps what was learnt, now and then."""
        if self._clock() - self._kept_at >= _KEEP_SECONDS:
            self.close()

    def close(self) -> None:
        """See `Pacer`: keeps what was learnt."""
        if not self._has_learnt:
            return
        self.costs.keep()
        if self._file is not None:
            write_json(self._file, self.experience.as_json())
        self._kept_at, self._has_learnt = self._clock(), False

    def account(self, request: Request) -> Account:
        """A running request's account."""
        return self.guard.account(request)

    def _observe_idle(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which nobody could be asked; few of them are learnt from, since that takes time."""
        self._num_idle += 1
        is_studied = self._num_idle % _SELDOM == 0
        if is_studied:
            self._learn_costs(outcomes, times)
        undrafted = times.forward + times.observing - times.committing
        own = times.scoring - times.drafting + times.hosting + self._clock() - times.observing
        overhead = self.experience.idle_overhead
        requests, estimate = [o.request for o in outcomes], undrafted + times.hosting
        self.guard.book_plain(requests, undrafted, own + undrafted, estimate, overhead.value)
        for outcome in outcomes:
            state = self._states[outcome.request.id]
            state.stops["idle"] += 1
            if is_studied:
                state.learn_rate(own + undrafted, len(outcome.tokens))
        if is_studied:
            overhead.learn(own)

    def _observe_plan(self, plan: Plan, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Enter a step in which drafters could be asked, and learn from it."""
        rows, emitted = _totals(outcomes)
        has_drafts = rows > len(outcomes)
        undrafted = times.forward + times.observing - times.committing
        estimate = self.costs.forward(rows, plan.context) + emitted * self.costs.rest if has_drafts else undrafted
        estimate += times.hosting
        plain = self.costs.plain(len(outcomes), plan.context)
        self._learn_costs(outcomes, times)
        for state, candidates, outcome in zip(plan.states, plan.candidates, outcomes, strict=True):
            self._learn(state, candidates, outcome, plain, times.forward)
        own = times.scoring - times.drafting + times.hosting + self._clock() - times.observing
        idle_overhead = self.experience.idle_overhead.value
        if plan.has_asked:
            estimate, idle_overhead = estimate + plan.asking_estimate + plan.overhead, 0.0
            self.experience.overhead.learn(own - plan.asking_seconds - plan.learn_costs())
        counts, elapsed = [len(outcome.tokens) for outcome in outcomes], own + undrafted
        for state, count in zip(plan.states, counts, strict=True):
            state.stops[plan.stop] += 1
            state.learn_rate(elapsed, count)
        if has_drafts:
            self.guard.book_drafted(plan.requests, counts, plain, elapsed, estimate)
        else:
            self.guard.book_plain(plan.requests, undrafted, elapsed, estimate, idle_overhead)

    def _learn_costs(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn what a forward, and the rest of a step, take; nothing of one that had more to do."""
        if times.reading:
            return
        rows, emitted = _totals(outcomes)
        context = max([len(outcome.request.tokens) - len(outcome.tokens) for outcome in outcomes])  # as it was scored
        self.costs.learn(rows, context, times.forward)
        self.costs.learn_rest((times.observing - times.committing) / max(emitted, 1))

    def _learn(
        self, state: RequestState, candidates: Candidates, outcome: StepOutcome, plain: float, forward: float
    ) -> None:
        """Judge the proposals, say who saved what, and plan when to ask again."""
        for verdict in candidates.judge([token.id for token in outcome.tokens]):
            state.drafter(verdict.drafter).learn(verdict.tokens, verdict.own)
        stats, tree = outcome.request.stats, outcome.tree
        state.learn_max_nodes(len(tree), outcome.num_accepted_drafts)
        for source in tree.sources:
            stats.drafter(source).earned_seconds -= max(forward - plain, 0.0) / len(tree)
        for node in outcome.path[: outcome.num_accepted_drafts]:
            stats.drafter(tree.sources[node]).earned_seconds += plain
        if state.request.drafters:
            state.next_ask, state.price = self._next_ask(state), self._price(state, plain)

    def _next_ask(self, state: RequestState) -> int:
        """The output length from which a drafter is worth asking, or due."""
        probe_seconds = self._probe_seconds([state.request])
        entry = entry_seconds(self.costs, self.experience.overhead.value, 1, len(state.request.tokens))
        drafters = map(state.drafter, state.request.drafters)
        return min([state.due(drafter, drafter.expected_tokens, probe_seconds, entry) for drafter in drafters])

    def _price(self, state: RequestState, plain: float) -> float:
        """Seconds of asking the most promising drafter, with the rows to try its drafts in: else it is for nothing."""
        first = state.first_seconds(max(state.request.drafters, key=state.expected_saving))
        rows = max(self.costs.forward(2, len(state.request.tokens)) - plain, 0.0)
        return first + rows + self.costs.rest + self.experience.overhead.value

    def _probe_seconds(self, requests: Sequence[Request]) -> float:
        """What asking a drafter may cost for each token although it does not pay."""
        plain = self.costs.plain(len(requests), max(len(request.tokens) for request in requests))
        return _PROBING * self._max_slowdown * plain / max(len(distinct(requests)), 1)


def _totals(outcomes: Sequence[StepOutcome]) -> tuple[int, int]:
    """Rows of a step's forward, and tokens that it emitted."""
    return sum([len(outcome.tree) + 1 for outcome in outcomes]), sum([len(outcome.tokens) for outcome in outcomes])
