"""Timing on a noisy machine: contenders take turns, medians are compared, and the noise is measured too.

Knows nothing of models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 1000
_FEWEST_ROUNDS = 3  # rounds that a time limit never cuts


def _nothing() -> None:
    """Clean up nothing."""


@dataclass(frozen=True)
class Contender:
    """Something to time; `reset` runs after it and is not timed."""

    name: str
    run: Callable[[], object]
    reset: Callable[[], object] = _nothing


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What `run` returned, and the seconds it took; a GPU's results must be on the host by then."""
    started = time.perf_counter()
    result = run()
    return result, time.perf_counter() - started


def interleave(
    contenders: Sequence[Contender],
    repeats: int,
    seconds: float = math.inf,
    on_round: Callable[[], object] = _nothing,
    rest: float = 0.0,
) -> dict[str, list[float]]:
    """Seconds of each contender, who take turns (A, B, A, B, ...) after one untimed round each.

    Before each turn it waits `rest` seconds, for threads of the turn before to fall asleep. It stops early once
    `seconds` have passed, but not before three rounds, or `repeats` if that is fewer.
    """
    samples: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    deadline = time.perf_counter() + seconds
    for index in range(repeats + 1):
        if index > _FEWEST_ROUNDS and time.perf_counter() > deadline:
            break
        for contender in contenders:
            time.sleep(rest)
            elapsed = timed(contender.run)[1]
            contender.reset()
            if index:
                samples[contender.name].append(elapsed)
        on_round()
    return samples


@dataclass(frozen=True)
class BootstrapInterval:
    """The 95 % interval of a bootstrap."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f}"

    def farthest_from(self, value: float) -> float:
        """The distance to its end that lies farther off."""
        return max(abs(self.low - value), abs(self.high - value))


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with the 95 % interval of its bootstrap."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    def as_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """The ratio of two medians. Rounds are drawn jointly: what disturbs a round disturbs both its halves."""
    count = min(len(numerator), len(denominator))
    above, below = np.array(numerator[:count]), np.array(denominator[:count])
    rounds = resamples(count)
    found = interval(np.median(above[rounds], 1) / np.median(below[rounds], 1))
    return Ratio(float(np.median(above) / np.median(below)), found.low, found.high)


def resamples(count: int) -> NDArray[np.int64]:
    """Indices (1000, count) of the bootstrap: draws with replacement from `count` observations, the same every time."""
    return np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))


def interval(estimates: NDArray[np.float64]) -> BootstrapInterval:
    """The interval of a statistic from its estimates (1000,) over `resamples`."""
    low, high = np.quantile(estimates, [0.025, 0.975])
    return BootstrapInterval(float(low), float(high))


def ratio_of_sums(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> Ratio:
    """The ratio of two sums over jobs of medians over rounds, from (jobs, rounds) each; rounds are drawn jointly."""
    count = numerator.shape[1]
    rounds = np.random.default_rng(0).integers(0, count, (_RESAMPLES, count))
    above, below = (np.median(samples[:, rounds], 2).sum(0) for samples in (numerator, denominator))
    low, high = np.quantile(above / below, [0.025, 0.975])
    value = np.median(numerator, 1).sum() / np.median(denominator, 1).sum()
    return Ratio(float(value), float(low), float(high))


def self_ratio(samples: Sequence[float]) -> float | None:
    """The noise figure: the median of every other round over that of the rest; None below two rounds."""
    if len(samples) < 2:
        return None
    return median(samples[0::2]) / median(samples[1::2])
