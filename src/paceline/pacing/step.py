"""Drafting for one step: drafters are asked while that pays, and the likeliest drafts get rows while those pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paceline.engine.ports import Ask
from paceline.engine.request import Drafter, Request
from paceline.engine.tree import EMPTY, DraftTree
from paceline.pacing.base import Room
from paceline.pacing.costs import CostTable
from paceline.pacing.growth import Growth, Pick, ranked
from paceline.pacing.pace import Pace

# Of the balance, what drafters after the first, and of the rest, what rows may lose in one step: who stakes all on one
# draft may wait long for another.
_RISK = 1 / 3


@dataclass
class Drafting:
    """The requests of a step, what may be spent on them, and what has been."""

    requests: Sequence[Request]
    paces: Sequence[Pace]
    rooms: Sequence[Room]
    costs: CostTable
    clock: Callable[[], float]
    overhead: float  # seconds that pacing itself is believed to take in this step
    share: float  # seconds per token for asking a drafter that does not pay
    believed: float = 0.0  # seconds of asking, before it was done
    actual: float = 0.0  # seconds that it took
    has_asked: bool = False

    def __post_init__(self) -> None:
        self.context = max(len(request.tokens) for request in self.requests)
        plain = self.costs.plain(len(self.requests), self.context)
        base = len(self.requests)
        self.floor = base * self.costs.rest + self.overhead - plain
        # For a step with one draft, and at least for one without any.
        self.least = max(self.costs.forward(base + 1, self.context) + self.floor, self.overhead)
        self.allowance = min(pace.account.balance for pace in self.paces)
        for pace, room in zip(self.paces, self.rooms, strict=True):
            pace.growth = Growth(pace.beliefs, room)

    def ask(self, drafter: Drafter, ask: Ask) -> None:
        """Have a drafter propose for the requests in which that pays, or is due, if the balance covers it."""
        wanted = [i for i in range(len(self.requests)) if self._wants(i, drafter)]
        price = sum(self._price(i, drafter) for i in wanted)
        reserve = self._reserve(sum(self.paces[i].habit(drafter)[0].worth for i in wanted))
        limit = _RISK * self.allowance if self.has_asked else self.allowance
        if not wanted or self._spent + price + reserve > limit:
            return
        self.believed += price
        self.has_asked = True
        requests = [self.requests[i] for i in wanted]
        budgets = [self.rooms[i].nodes for i in wanted]
        started = self.clock()
        first = total = 0.0
        num_later = 0
        before = float(len(wanted))
        for trees in ask(drafter, requests, budgets):
            gain = sum(self._growth(i).take(drafter, tree) for i, tree in zip(wanted, trees, strict=True))
            total = self.clock() - started
            first = first or total
            num_later += total > first
            if not self._pays_on(wanted, drafter, gain, before):
                break
            before = gain
        self._note(wanted, drafter, (first, self.clock() - started), num_later)

    def sample(self) -> list[DraftTree]:
        """The trees: as many of the likeliest nodes as are worth their rows and within the balance."""
        growths = [self._growth(i) for i in range(len(self.paces))]
        picks = ranked(growths)
        size, why = self._size(picks)
        for pace in self.paces:
            pace.stops[why] += 1
        if size == 0:
            return [EMPTY] * len(growths)
        kept: list[list[int]] = [[] for _ in growths]
        for pick in picks[:size]:
            kept[pick.growth].append(pick.node)
        return [growth.union.cut(nodes) if nodes else EMPTY for growth, nodes in zip(growths, kept, strict=True)]

    def _size(self, picks: Sequence[Pick]) -> tuple[int, str]:
        """How many of the picks get rows, and why no more: what they save, less what their rows cost, is most."""
        base = len(self.requests)
        most = min(len(picks), self.costs.most_rows - base)
        if most <= 0:
            return 0, "no drafts"
        plain = self.costs.forward(base, self.context)
        left = self.allowance - self._spent
        limit = min(max(_RISK * left, self.least), left)
        best, size, why, saved, taken = 0.0, 0, "rows would not pay", 0.0, 0
        for rows in self.costs.sizes(base, base + most):
            for pick in picks[taken : rows - base]:
                saved += pick.reach * self.paces[pick.growth].seconds_per_token
            taken = rows - base
            cost = self.costs.forward(rows, self.context)
            if cost + self.floor + self._of_neighbours(taken) > limit:
                return size, "guard"
            if saved - (cost - plain) * base > best:
                best, size = saved - (cost - plain) * base, taken
        return size, "all drafts taken" if size == most else why

    @property
    def _spent(self) -> float:
        return max(self.believed, self.actual)

    def _reserve(self, worth: float) -> float:
        """What asking must leave: for as many drafts as it may be worth, but no more than rows may lose at once."""
        rows = min(len(self.requests) + round(worth), self.costs.most_rows)
        return max(min(self.costs.forward(rows, self.context) + self.floor, _RISK * self.allowance), self.least)

    def _of_neighbours(self, num_drafts: int) -> float:
        """What a request that accepts nothing pays for its neighbours, should they accept everything."""
        return num_drafts * self.costs.rest if len(self.requests) > 1 else 0.0

    def _wants(self, index: int, drafter: Drafter) -> bool:
        request, growth = self.requests[index], self._growth(index)
        if self.rooms[index].nodes == 0 or not any(d is drafter for d in request.drafters):
            return False
        return self.paces[index].due(request, drafter, growth.foreseen, self.share) <= request.num_output_tokens

    def _price(self, index: int, drafter: Drafter) -> float:
        habit, cost = self.paces[index].habit(drafter)
        return cost.asking(len(self.requests[index].tokens) - habit.read)

    def _pays_on(self, wanted: Sequence[int], drafter: Drafter, gain: float, before: float) -> bool:
        """Whether a further stage promises more than it costs: less than this one by as much as this by the last."""
        pace = self.paces[wanted[0]]
        more = pace.habit(drafter)[1].more.value * len(wanted)
        promise = gain * min(gain / before, 1.0) if before > 0.0 else 0.0
        reserve = self._reserve(sum(self._growth(i).worth(drafter) for i in wanted))
        if promise * pace.seconds_per_token <= more or self._spent + more + reserve > self.allowance:
            return False
        self.believed += more
        return True

    def _note(self, wanted: Sequence[int], drafter: Drafter, seconds: tuple[float, float], num_later: int) -> None:
        """Remember what asking took and what it brought."""
        first, total = seconds
        self.actual += total
        for i in wanted:
            request, growth = self.requests[i], self._growth(i)
            habit, cost = self.paces[i].habit(drafter)
            unread = len(request.tokens) - habit.read
            cost.learn(unread, first / len(wanted), (total - first) / len(wanted), num_later)
            habit.asked_at, habit.read = request.num_output_tokens, len(request.tokens)
            habit.learn(growth.worth(drafter))

    def _growth(self, index: int) -> Growth:
        growth = self.paces[index].growth
        assert growth is not None  # made with the step
        return growth
