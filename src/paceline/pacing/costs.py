"""What forwards cost here: a table with upper and lower bounds, corrected by every step.

All times are seconds. Machines are noisy, so bounds are quantiles that follow what steps really take, and more rows
never cost less: fewer could be padded to as many.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

_UPPER, _LOWER = 0.75, 0.25
_SETTLED = 8  # samples
_LEAST = 1e-12  # of a value
_CHANCE = 0.01  # of a run that is taken for a change
_KEPT, _GUESSED = 1.0, 1e-3  # samples that a cost counts for which another process kept, and one that nobody has seen
_COMPARED = 16  # samples between two times that row counts are compared, once one is settled

Keep = Callable[[dict[int, "ForwardCost"]], None]


class Quantile:
    """Follows a quantile of positive samples by steps in proportion to itself: an outlier moves it like any other.

    A stochastic approximation (Robbins and Monro 1951) in the logarithm. Steps shrink to `RATE`, with which it moves
    by a factor of ten in about a hundred samples. But a run of samples on one side that chance would hardly give is a
    change: the value goes to the nearest of them. Where `is_guess`, the first sample takes the place of the value.
    O(1) in memory and time.
    """

    __slots__ = ("_limits", "_nearest", "_rate", "_run", "_share", "value")

    RATE = 0.04
    _RESTART = 0.3

    def __init__(self, value: float, share: float, is_guess: bool = False) -> None:
        self.value = value
        self._share = share
        self._rate = 1.0 if is_guess else self.RATE
        self._limits = (_unlikely(share), _unlikely(1.0 - share))  # of runs below and above
        self._run = 0  # samples on one side in a row: below it if negative
        self._nearest = 0.0  # of that run

    def learn(self, sample: float) -> None:
        """Take in a sample."""
        if self._rate == 1.0:
            self.value = sample
        else:
            self._follow(sample, sample < self.value)
        self._rate = max(self.RATE, self._rate * 0.7)

    def _follow(self, sample: float, is_below: bool) -> None:
        if is_below:
            self._nearest = max(self._nearest, sample) if self._run < 0 else sample
            self._run = min(self._run, 0) - 1
        else:
            self._nearest = min(self._nearest, sample) if self._run > 0 else sample
            self._run = max(self._run, 0) + 1
        if -self._run >= self._limits[0] or self._run >= self._limits[1]:
            self.value, self._run = max(self._nearest, _LEAST), 0
        else:
            self.value *= 1.0 + self._rate * (self._share - is_below)

    def restart(self, value: float) -> None:
        """Start from a value that was learnt elsewhere: soon corrected, but not by one sample alone."""
        self.value = value
        self._rate = self._RESTART


def _unlikely(probability: float) -> int:
    """The length of a run, each of whose samples has a probability, that chance hardly gives."""
    return math.ceil(math.log(_CHANCE) / math.log(probability))


class SettlingQuantile(Quantile):
    """A guess, until the first samples come: then their quantile, and from the eighth on it follows as others do."""

    __slots__ = ("_samples",)

    def __init__(self, value: float, share: float) -> None:
        super().__init__(value, share)
        self._samples: list[float] = []

    def learn(self, sample: float) -> None:
        """Take in a sample."""
        if len(self._samples) == _SETTLED:
            super().learn(sample)
            return
        insort(self._samples, sample)
        self.value = self._samples[math.ceil(self._share * len(self._samples)) - 1]


def ascending(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The values nearest to these, by weighted absolute errors, that never fall: one outlier moves none but itself.

    Pool adjacent violators, each pool at its lower weighted median (Robertson and Wright 1980): what disturbs a
    forward makes it slower, not faster. O(n log n) where few are pooled.
    """
    pools: list[tuple[float, list[tuple[float, float]]]] = []  # the median, and the values with their weights
    for one in zip(values, weights, strict=True):
        median, members = one[0], [one]
        while pools and pools[-1][0] > median:
            members = pools.pop()[1] + members
            median = _median(members)
        pools.append((median, members))
    return [median for median, members in pools for _ in members]


def _median(members: Sequence[tuple[float, float]]) -> float:
    """The lower weighted one."""
    members, half = sorted(members), sum([weight for _, weight in members]) / 2.0
    sums = list(accumulate([weight for _, weight in members]))
    return members[bisect_left(sums, half)][0]


@dataclass(frozen=True)
class ForwardCost:
    """Seconds of a forward at one row count: `base + slope * context`."""

    base: float
    slope: float

    def at(self, context: int) -> float:
        """Seconds behind `context` cached positions."""
        return self.base + self.slope * context


class _Corrections:
    """A quantile of each row count's costs over the table's, and what brings it into order with the others."""

    __slots__ = ("factors", "quantiles")

    def __init__(self, quantiles: dict[int, Quantile]) -> None:
        self.quantiles = quantiles
        self.factors = dict.fromkeys(quantiles, 1.0)

    def of(self, count: int) -> float:
        """What the table's cost of a row count is to be multiplied by."""
        return self.quantiles[count].value * self.factors[count]

    def order(self, costs: Sequence[float], weights: Sequence[float]) -> None:
        """See that more rows never cost less, given the table's costs and how many samples each count rests on."""
        said = [cost * one.value for cost, one in zip(costs, self.quantiles.values(), strict=True)]
        for count, before, after in zip(self.quantiles, said, ascending(said, weights), strict=True):
            self.factors[count] = after / max(before, _LEAST)


class CostTable:
    """Estimated seconds of forwards, plain steps and the rest of a step.

    A forward's cost is the table's times two corrections: one for all row counts, since a machine slows down as a
    whole, and one for each. Row counts that contradict one another, since some were seen at a bad moment, are brought
    into order: those seen often count most.

    Args:
        forwards: seconds by row count.
        rest: seconds of a token beside forward and pacing, until it is known.
        known: row counts whose costs were learnt in another process or by a single look; the others are guesses, and
            so is how fast the machine is today. None: all have just been measured.
        keep: told what was learnt of the row counts seen, at the 8th, 16th, 32nd, ... sample and when asked to.
    """

    def __init__(
        self,
        forwards: dict[int, ForwardCost],
        rest: float = 1e-4,
        known: Collection[int] | None = None,
        keep: Keep | None = None,
    ) -> None:
        self.forwards = dict(sorted(forwards.items()))
        self._counts = list(self.forwards)
        self._seen = set(self._counts if known is None else known)
        self._upper, self._lower = self._corrections(_UPPER), self._corrections(_LOWER)
        seen = _SETTLED if known is None else _KEPT
        self._weights = {count: seen if count in self._seen else _GUESSED for count in self._counts}  # samples
        self._settled = dict.fromkeys(self._counts, 1.0) if known is None else {}  # corrections of bad guesses
        self._machine = Quantile(1.0, 0.5) if known is None else SettlingQuantile(1.0, 0.5)
        self._rest_upper, self._rest_lower = Quantile(rest, _UPPER, True), Quantile(rest, _LOWER, True)
        self._keep, self._num_samples = keep, 0
        self._order(0)

    def _corrections(self, share: float) -> _Corrections:
        known, unknown = partial(Quantile, 1.0, share), partial(SettlingQuantile, 1.0, share)
        return _Corrections({count: known() if count in self._seen else unknown() for count in self._counts})

    @property
    def max_rows(self) -> int:
        """The largest row count of a forward."""
        return self._counts[-1]

    @property
    def rest(self) -> float:
        """An upper bound of what a token takes beside forward and pacing: the sampler, the commit, the text."""
        return self._rest_upper.value

    def forward(self, num_rows: int, context: int) -> float:
        """An upper bound of a forward of `num_rows`, padded as the target pads them; more rows, more forwards."""
        return self._of(num_rows, context, self._upper)

    def plain(self, num_requests: int, context: int) -> float:
        """A lower bound of a plain step for so many requests at once: t1 of the guard."""
        return self._of(num_requests, context, self._lower) + num_requests * self._rest_lower.value

    def sizes(self, min_rows: int, max_rows: int) -> list[int]:
        """Row counts worth considering from `min_rows` to `max_rows`: each as full as its padding allows."""
        return [min_rows, *(count for count in self._counts if min_rows < count < max_rows), max_rows]

    def learn(self, num_rows: int, context: int, seconds: float) -> None:
        """Take in what a forward took."""
        count = self._padded(num_rows)
        if num_rows > count:
            return  # several forwards
        ratio = seconds / self.forwards[count].at(context)
        self._machine.learn(ratio / self._settled.get(count, self._middle(count)))
        for corrections in (self._upper, self._lower):
            corrections.quantiles[count].learn(ratio / self._machine.value)
        self._seen.add(count)
        self._num_samples += 1
        self._compare(count, context)
        if self._num_samples.bit_count() == 1:
            self.keep()

    def _compare(self, count: int, context: int) -> None:
        """One more sample of a row count: compare all at first, and then now and then, since it takes some time."""
        is_new = self._weights[count] < _SETTLED
        if is_new:
            self._weights[count] = math.floor(self._weights[count]) + 1.0
            if self._weights[count] == _SETTLED:
                self._settled[count] = self._middle(count)
        if is_new or self._num_samples % _COMPARED == 0:
            self._order(context)

    def _order(self, context: int) -> None:
        costs = [cost.at(context) for cost in self.forwards.values()]
        weights = list(self._weights.values())
        self._upper.order(costs, weights)
        self._lower.order(costs, weights)

    def keep(self) -> None:
        """Have what was learnt kept, once it rests on enough samples."""
        if self._keep is not None and self._num_samples >= _SETTLED:
            self._keep(self.learnt())

    def learnt(self) -> dict[int, ForwardCost]:
        """What forwards cost by now, of the row counts that were known or seen: between the bounds."""
        return {count: self._scaled(count) for count in self._counts if count in self._seen}

    def _scaled(self, count: int) -> ForwardCost:
        cost = self.forwards[count]
        scale = self._middle(count) * self._machine.value
        return ForwardCost(cost.base * scale, cost.slope * scale)

    def _middle(self, count: int) -> float:
        """A row count's correction, between its bounds."""
        return math.sqrt(self._upper.of(count) * self._lower.of(count))

    def learn_rest(self, seconds: float) -> None:
        """Take in what a token took beside forward and pacing."""
        self._rest_upper.learn(seconds)
        self._rest_lower.learn(seconds)

    def _padded(self, num_rows: int) -> int:
        return self._counts[min(bisect_left(self._counts, num_rows), len(self._counts) - 1)]

    def _of(self, num_rows: int, context: int, corrections: _Corrections) -> float:
        count = self._padded(num_rows)
        num_forwards = -(-num_rows // count)
        return num_forwards * self.forwards[count].at(context) * corrections.of(count) * self._machine.value
