"""What forwards cost here and now: the measured table, and how far several rounds of it spread."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Target
from paceline.pacing import ForwardCost

_ROWS = (1, 2, 4, 8, 16, 32, 64)
_MOST_ROUNDS, _FEWEST_ROUNDS = 15, 3
_SECONDS = 4.0
_MOST_FORWARDS, _FEWEST_FORWARDS = 200, 5  # of one row, to see how they spread
_FORWARD_SECONDS = 0.7

Seconds = Callable[[int, int], float]  # of a forward, by rows and context


@dataclass(frozen=True)
class MeasuredCosts:
    """A cost table and rounds in which it was put to the test.

    `scales[round, i]` is what a forward of `counts[i]` rows took over what the table says.
    """

    table: dict[int, ForwardCost]
    counts: tuple[int, ...]
    scales: NDArray[np.float64]  # (rounds, counts)

    def usual(self) -> Seconds:
        """By the median of all rounds."""
        return self._by(np.arange(len(self.scales)))

    def drawn(self, rng: np.random.Generator) -> Seconds:
        """By the median of rounds drawn with replacement: rows are drawn jointly, as they were disturbed."""
        return self._by(rng.integers(0, len(self.scales), len(self.scales)))

    def _by(self, rounds: NDArray[np.int64]) -> Seconds:
        scale = np.median(self.scales[rounds], 0).tolist()
        known = list(self.table)

        def seconds(num_rows: int, context: int) -> float:
            count = known[min(bisect_left(known, num_rows), len(known) - 1)]
            place = min(bisect_left(self.counts, num_rows), len(self.counts) - 1)
            return float(self.table[count].at(context) * scale[place])

        return seconds


@dataclass(frozen=True)
class ForwardPace:
    """Seconds of a forward of one row: as it is now, and at the quickest that is known."""

    usual: float
    quickest: float

    @property
    def slowdown(self) -> float:
        """How many times the quickest it takes."""
        return self.usual / self.quickest


def forward_pace(target: Target, table: dict[int, ForwardCost], context: int) -> ForwardPace:
    """The median and the quickest of many forwards of one row; the table may know of a quicker one."""
    samples: list[float] = []
    deadline = time.perf_counter() + _FORWARD_SECONDS
    while len(samples) < _FEWEST_FORWARDS or (len(samples) < _MOST_FORWARDS and time.perf_counter() < deadline):
        samples.append(_time(target, min(table), context))
    return ForwardPace(median(samples), min(*samples, table[min(table)].at(context)))


def measured_costs(target: Target, table: dict[int, ForwardCost], contexts: Sequence[int]) -> MeasuredCosts:
    """Time forwards of a few row counts in turns, behind the median of `contexts`, for some seconds."""
    context = int(median(contexts))
    counts = tuple(count for count in _ROWS if count in table and target.dry_run(count, context))
    rounds: list[list[float]] = []
    deadline = time.perf_counter() + _SECONDS
    while len(rounds) < _FEWEST_ROUNDS or (len(rounds) < _MOST_ROUNDS and time.perf_counter() < deadline):
        rounds.append([_time(target, count, context) / table[count].at(context) for count in counts])
    return MeasuredCosts(dict(sorted(table.items())), counts, np.array(rounds))


def _time(target: Target, count: int, context: int) -> float:
    """Seconds of a forward after another one like it, as they come in decoding."""
    target.dry_run(count, context)
    started = time.perf_counter()
    target.dry_run(count, context)
    return time.perf_counter() - started
