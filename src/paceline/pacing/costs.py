"""What a step costs on this machine: measured once, believed with bounds, and corrected by every step.

All times are seconds. Machines are noisy, so upper and lower bounds are quantiles that follow what steps really take.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paceline.pacing.trackers import Quantile

_UPPER, _LOWER = 0.75, 0.25
_NEAR, _FAR = 32, 992  # positions before the rows; costs are taken to be linear in them
_SECONDS = 1.5  # for measuring; what is left unmeasured then is interpolated
_ROUNDS = 3

Clock = Callable[[], float]


class Rehearsing(Protocol):
    """What is measured: a target, whose forwards may be run over a cache of its own."""

    @property
    def row_counts(self) -> Sequence[int]:
        """Rows that a forward may have, ascending."""

    def dry_run(self, num_rows: int, context: int) -> bool:
        """Run a forward of so many rows behind so many cached positions; False if they do not fit."""


@dataclass(frozen=True)
class ForwardCost:
    """Seconds of a forward at one row count: `base + slope * context`."""

    base: float
    slope: float

    def at(self, context: int) -> float:
        """Seconds behind `context` cached positions."""
        return self.base + self.slope * context


class CostTable:
    """Believed seconds of forwards, plain steps and the rest of a step.

    A forward's cost is the measured one times a pace: one for all row counts, since a machine slows down as a whole,
    and one for each.
    """

    def __init__(self, forwards: dict[int, ForwardCost], rest: float = 1e-4) -> None:
        self.forwards = dict(sorted(forwards.items()))
        self._counts = list(self.forwards)
        self._upper_pace = {count: Quantile(1.0, _UPPER) for count in self._counts}
        self._lower_pace = {count: Quantile(1.0, _LOWER) for count in self._counts}
        self._shared_pace = Quantile(1.0, 0.5)
        self._rest_upper, self._rest_lower = Quantile(rest, _UPPER, True), Quantile(rest, _LOWER, True)

    @property
    def most_rows(self) -> int:
        """The largest row count of a forward."""
        return self._counts[-1]

    @property
    def rest(self) -> float:
        """An upper bound of what a token takes beside forward and pacing: the law, the commit, the text."""
        return self._rest_upper.value

    def forward(self, num_rows: int, context: int) -> float:
        """An upper bound of a forward of `num_rows`, padded as the target pads them; more rows, more forwards."""
        return self._of(num_rows, context, self._upper_pace)

    def plain(self, num_requests: int, context: int) -> float:
        """A lower bound of a plain step for so many requests at once: t1 of the guard."""
        return self._of(num_requests, context, self._lower_pace) + num_requests * self._rest_lower.value

    def sizes(self, num_rows: int, most: int) -> list[int]:
        """Row counts worth considering from `num_rows` to `most`: each as full as its padding allows."""
        return [num_rows, *(count for count in self._counts if num_rows < count < most), most]

    def learn(self, num_rows: int, context: int, seconds: float) -> None:
        """Take in what a forward took."""
        count = self._padded(num_rows)
        if num_rows > count:
            return  # several forwards
        ratio = seconds / self.forwards[count].at(context)
        shared = self._shared_pace.value
        self._shared_pace.learn(ratio)
        self._upper_pace[count].learn(ratio / shared)
        self._lower_pace[count].learn(ratio / shared)

    def learn_rest(self, seconds: float) -> None:
        """Take in what a token took beside forward and pacing."""
        self._rest_upper.learn(seconds)
        self._rest_lower.learn(seconds)

    def _padded(self, num_rows: int) -> int:
        return self._counts[min(bisect_left(self._counts, num_rows), len(self._counts) - 1)]

    def _of(self, num_rows: int, context: int, paces: dict[int, Quantile]) -> float:
        count = self._padded(num_rows)
        num_forwards = -(-num_rows // count)
        return num_forwards * self.forwards[count].at(context) * paces[count].value * self._shared_pace.value


def measure(target: Rehearsing, clock: Clock = time.perf_counter) -> dict[int, ForwardCost]:
    """Time forwards at the target's row counts and two context lengths, within about two seconds.

    Behind a short context first, powers of two first, then behind a long one: what is left when time is up, or has no
    room, costs as much as the next larger that was measured, or in proportion to the largest. A count is run once
    untimed, for what is prepared at first use.
    """
    deadline = clock() + _SECONDS
    counts = _by_worth(target.row_counts)
    near = _times(target, counts[:1], _NEAR, clock) or _times(target, counts[:1], 0, clock)
    near |= _times(target, counts[1:], _NEAR, clock, deadline)
    far = _times(target, [count for count in counts if count in near], _FAR, clock, deadline)
    slopes = {count: max(seconds - near[count], 0.0) / (_FAR - _NEAR) for count, seconds in far.items()}
    return {count: _line(count, near, slopes) for count in target.row_counts}


def _by_worth(counts: Sequence[int]) -> list[int]:
    """Powers of two first: what lies between can be interpolated."""
    return sorted(counts, key=lambda count: (count & (count - 1) != 0, count))


def quickest(
    target: Rehearsing, count: int, context: int, rounds: int, clock: Clock = time.perf_counter
) -> float | None:
    """Seconds of the quickest of some forwards after an untimed one; None if they do not fit.

    What noise adds is learnt while decoding.
    """
    if not target.dry_run(count, context):
        return None
    samples = []
    for _ in range(rounds):
        started = clock()
        target.dry_run(count, context)
        samples.append(clock() - started)
    return min(samples)


def _times(
    target: Rehearsing, counts: Sequence[int], context: int, clock: Clock, deadline: float = float("inf")
) -> dict[int, float]:
    """Seconds of forwards behind a context, of the row counts that fit and come up before the deadline."""
    found: dict[int, float] = {}
    for count in counts:
        seconds = quickest(target, count, context, _ROUNDS, clock) if clock() < deadline else None
        if seconds is not None:
            found[count] = seconds
    return found


def _line(count: int, near: dict[int, float], slopes: dict[int, float]) -> ForwardCost:
    slope = _known(count, slopes) if slopes else 0.0
    return ForwardCost(max(_known(count, near) - slope * _NEAR, 0.0), slope)


def _known(count: int, measured: dict[int, float]) -> float:
    """What was measured for a count, or for the next larger; beyond the largest, in proportion to it."""
    counts = sorted(measured)
    nearest = counts[min(bisect_left(counts, count), len(counts) - 1)]
    return measured[nearest] * max(1.0, count / nearest)
