"""The plan of one step: drafters are asked while that pays, and the likeliest drafts get rows while those pay.

What belongs to a step lives here and nowhere else: what was proposed, what it was estimated to cost, what it took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from paceline.engine.ports import Ask, Budget
from paceline.engine.request import Drafter, DraftLimits, Request
from paceline.engine.stats import DrafterStats
from paceline.engine.tree import EMPTY, MAX_DEPTH, DraftTree
from paceline.pacing.candidates import Candidates, Node, ranked
from paceline.pacing.costs import CostTable
from paceline.pacing.estimates import DrafterStatistics, RequestState

# Of the balance, what drafters after the first, and of the rest, what rows may lose in one step: who stakes all on one
# draft may wait long for another.
_RISK = 1 / 3


def max_depth(request: Request) -> int:
    """How deep a draft tree may be: the last token is never a draft, and no row stands beyond the context."""
    return min(MAX_DEPTH, request.num_remaining - 1)


def entry_seconds(costs: CostTable, overhead: float, num_requests: int, context: int) -> float:
    """What the first drafter asked in a step costs beside its own time: pacing the step, and a row for a draft."""
    row = costs.forward(num_requests + 1, context) - costs.forward(num_requests, context)
    return overhead + max(row, 0.0)


def distinct(requests: Sequence[Request]) -> list[Drafter]:
    """The requests' drafters, each once, in order."""
    return list({id(d): d for request in requests for d in request.drafters}.values())


class Asking(NamedTuple):
    """One drafter asked for one request."""

    statistics: DrafterStatistics
    stats: DrafterStats  # the request's, which the engine bills
    billed: float  # seconds of these, when it had proposed
    num_unread: int  # tokens that it had to read
    depth: int
    seconds: float  # its share of what proposing took


class Plan:
    """The requests of a step, what is proposed for them, what may be spent on it, and what has been.

    Args:
        states: of its requests, in order.
        costs: what forwards cost.
        clock: seconds.
        budget: draft nodes, at most.
        overhead: seconds that pacing is estimated to take in this step.
        probe_seconds: that asking a drafter which does not pay may cost for each token.
        allowance: seconds that the step may lose.
    """

    def __init__(
        self,
        states: Sequence[RequestState],
        costs: CostTable,
        clock: Callable[[], float],
        budget: Budget,
        overhead: float,
        probe_seconds: float,
        allowance: float,
    ) -> None:
        self.states = states
        self.requests = [state.request for state in states]
        self.candidates = [
            Candidates(state.counts, min(most, state.max_nodes), max_depth(state.request))
            for state, most in zip(states, budget.each, strict=True)
        ]
        self._is_chain = budget.is_chain
        self._max_drafts = max(min(budget.total, costs.max_rows - len(states)), 0)
        self.context = max(len(request.tokens) for request in self.requests)
        self.overhead = overhead
        self.stop = "no drafts"  # why drafting went no further
        self.has_asked = False
        self.asking_estimate = 0.0  # seconds of asking, before it was done
        self.asking_seconds = 0.0  # that it took
        self._askings: list[Asking] = []
        self._costs, self._clock, self._probe_seconds = costs, clock, probe_seconds
        num_requests = len(states)
        # What a step loses if nothing is accepted, but for its forward; and all of it with one draft, or with none.
        self._base_loss = num_requests * costs.rest + overhead - costs.plain(num_requests, self.context)
        self._min_loss = max(costs.forward(num_requests + 1, self.context) + self._base_loss, overhead)
        self._allowance = allowance
        self._entry = entry_seconds(costs, overhead, num_requests, self.context)

    def by_expected_saving(self) -> list[Drafter]:
        """The requests' drafters, the most promising first."""
        return sorted(distinct(self.requests), key=lambda drafter: -self._expected_saving(drafter))

    def _expected_saving(self, drafter: Drafter) -> float:
        having = [state for state in self.states if any(d is drafter for d in state.request.drafters)]
        return sum([state.expected_saving(drafter) for state in having])

    def ask(self, drafter: Drafter, ask: Ask) -> None:
        """Have a drafter propose for the requests in which that pays, or is due, if the balance covers it."""
        wanted = [i for i in range(len(self.states)) if self._wants(i, drafter)]
        if not wanted:
            return
        price = sum(self.states[i].first_seconds(drafter) for i in wanted)
        expected_tokens = sum(self.states[i].drafter(drafter).expected_tokens for i in wanted)
        limit = _RISK * self._allowance if self.has_asked else self._allowance
        if self._spend(price, expected_tokens, limit):
            self.has_asked = True
            self._run(drafter, wanted, ask)

    def _run(self, drafter: Drafter, wanted: Sequence[int], ask: Ask) -> None:
        """Have a drafter propose, as deep as the balance covers; what that is estimated to take is spent."""
        price = sum(self.states[i].drafter(drafter).shared.next_level.value for i in wanted)
        num_levels = self._affordable_levels(drafter, wanted, price)
        limits = [self._limits(i, drafter, num_levels) for i in wanted]
        started = self._clock()
        trees = ask(drafter, [self.requests[i] for i in wanted], limits)
        seconds = self._clock() - started
        for i, tree in zip(wanted, trees, strict=True):
            self.candidates[i].add(drafter, tree)
        depth = min(max(max(tree.depths, default=1) for tree in trees), num_levels)
        self.asking_estimate += (depth - 1) * price
        self._note(drafter, wanted, depth, seconds)

    def trees(self) -> list[DraftTree]:
        """One for each request: as many of the likeliest nodes as are worth their rows and within the balance."""
        nodes = ranked(self.candidates, self._is_chain)
        size, self.stop = self._size(nodes)
        if size == 0:
            return [EMPTY] * len(self.states)
        kept: list[list[int]] = [[] for _ in self.states]
        for _, index, node in nodes[:size]:
            kept[index].append(node)
        return [one.union.cut(chosen) if chosen else EMPTY for one, chosen in zip(self.candidates, kept, strict=True)]

    def _size(self, nodes: Sequence[Node]) -> tuple[int, str]:
        """How many of the nodes get rows, and why no more: what they save, less what their rows cost, is most."""
        base = len(self.states)
        max_size = min(len(nodes), self._max_drafts)
        if max_size == 0:
            return 0, "no drafts"
        plain = self._costs.forward(base, self.context)
        left = self._allowance - self.asking_estimate  # what asking took beyond that is no reason to waste it
        limit = min(max(_RISK * left, self._min_loss), left)
        best, size, saved, taken = 0.0, 0, 0.0, 0
        for rows in self._costs.sizes(base, base + max_size):
            for path, index, _ in nodes[taken : rows - base]:
                saved += path * self.states[index].seconds_per_token
            taken = rows - base
            cost = self._costs.forward(rows, self.context)
            if cost + self._base_loss + self._rest_of_neighbours(taken) > limit:
                return size, "guard"
            if saved - (cost - plain) * base > best:
                best, size = saved - (cost - plain) * base, taken
        return size, "all drafts taken" if size == max_size else "rows would not pay"

    def _wants(self, index: int, drafter: Drafter) -> bool:
        request, state, candidates = self.requests[index], self.states[index], self.candidates[index]
        if candidates.max_nodes == 0 or not any(d is drafter for d in request.drafters):
            return False
        known = state.drafter(drafter)
        new_tokens = candidates.new_tokens(known.expected_tokens)
        entry = 0.0 if self.has_asked else self._entry
        return state.due(known, new_tokens, self._probe_seconds, entry) <= request.num_output_tokens

    def _spend(self, price: float, expected_tokens: float, limit: float) -> bool:
        """Spend a price, if enough is left within the limit to try so many drafts; False if not."""
        if self.asking_estimate + price + self._reserve(expected_tokens) > limit:
            return False
        self.asking_estimate += price
        return True

    def _affordable_levels(self, drafter: Drafter, wanted: Sequence[int], price: float) -> int:
        """How deep a proposal may be whose first level is paid, each further one at a price, in seconds."""
        expected_tokens = sum(self.states[i].drafter(drafter).expected_tokens for i in wanted)
        left = self._allowance - self.asking_estimate - self._reserve(expected_tokens)
        return 1 + (min(int(max(left, 0.0) / price), MAX_DEPTH) if price > 0.0 else MAX_DEPTH)

    def _limits(self, index: int, drafter: Drafter, num_levels: int) -> DraftLimits:
        """How far a drafter may look ahead for a request: while a level should save more than it takes."""
        state, candidates = self.states[index], self.candidates[index]
        known = state.drafter(drafter)
        min_gain = known.shared.next_level.value / (state.seconds_per_token * known.calibration)
        return DraftLimits(candidates.max_nodes, min(candidates.max_depth, num_levels), min_gain)

    def _reserve(self, expected_tokens: float) -> float:
        """What asking must leave: for as many drafts as it may bring, but no more than rows may lose at once."""
        rows = min(len(self.states) + round(expected_tokens), self._costs.max_rows)
        loss = self._costs.forward(rows, self.context) + self._base_loss
        return max(min(loss, _RISK * self._allowance), self._min_loss)

    def _rest_of_neighbours(self, num_drafts: int) -> float:
        """What a request that accepts nothing pays for its neighbours, should they accept everything."""
        return num_drafts * self._costs.rest if len(self.states) > 1 else 0.0

    def learn_costs(self) -> float:
        """Take in what each asking took, and what the drafter then took to observe the step; seconds of the latter."""
        total = 0.0
        for asking in self._askings:
            observing = asking.stats.seconds - asking.billed
            asking.statistics.learn_cost(asking.num_unread, asking.depth, asking.seconds + observing)
            total += observing
        return total

    def _note(self, drafter: Drafter, wanted: Sequence[int], depth: int, seconds: float) -> None:
        """Remember what asking took; what observing takes is known after the step."""
        self.asking_seconds += seconds
        for i in wanted:
            request, state = self.requests[i], self.states[i].drafter(drafter)
            num_unread = len(request.tokens) - state.num_read
            stats = request.stats.drafter(drafter.name)
            asking = Asking(state.shared, stats, stats.seconds, num_unread, depth, seconds / len(wanted))
            self._askings.append(asking)
            state.asked_at, state.num_read = request.num_output_tokens, len(request.tokens)
