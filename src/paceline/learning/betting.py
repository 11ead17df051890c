"""Money on the mean of bounded differences: wealth that grows where it lies above a margin, and nowhere else.

Under the hypothesis each difference is at most the margin on average, given all that was seen before it. Then wealth is
a supermartingale, whatever the drift and the dependence, as long as a stake is set before its difference is seen
(Waudby-Smith and Ramdas, arXiv 2010.09686; for forecasters that are compared: Choe and Ramdas, arXiv 2110.00115).
"""

from __future__ import annotations

import math
from collections import deque

MOST = 0.9  # of the wealth that one bet may stake: it is never all lost

_LATEST = 24  # differences that say how soon a bet will be won
_PRIOR = 0.25  # the mean square that is expected of a scaled difference before any was seen; it counts for one


def best_stake(mean: float, mean_square: float) -> float:
    """The share of the wealth by which it grows fastest, to second order ("approximate GRAPA"): from 0 to `MOST`."""
    return min(max(mean / mean_square, 0.0), MOST)


def growth(mean: float, mean_square: float) -> float:
    """What log wealth then gains for each scaled difference, to second order."""
    stake = best_stake(mean, mean_square)
    return stake * mean - stake * stake * mean_square / 2.0


class Bet:
    """A bet on differences in [-bound, bound] whose mean may lie above `margin`.

    Raises:
        ValueError: the margin is out of the differences' reach.
    """

    def __init__(self, bound: float, margin: float = 0.0) -> None:
        if not -bound < margin < bound:
            raise ValueError(f"margin is {margin}; allowed: above {-bound} and below {bound}")
        self.log_wealth = 0.0
        self.num_differences = 0
        self._bound, self._margin = bound, margin
        self._sum = self._squares = 0.0  # of scaled differences, from -1 up
        self._latest: deque[float] = deque(maxlen=_LATEST)

    @property
    def stake(self) -> float:
        """The share of the wealth that goes on the next difference, by what was seen so far."""
        return best_stake(self._mean, self._mean_square)

    def see(self, difference: float) -> None:
        """Settle the bet on a difference; the next stake may know it."""
        scaled = self._scaled(difference)
        self.log_wealth += math.log1p(self.stake * scaled)
        self._sum += scaled
        self._squares += scaled * scaled
        self.num_differences += 1
        self._latest.append(scaled)

    def remaining(self, log_wealth: float) -> float:
        """Further differences until that wealth is reached, if they go on like the latest; infinite if never."""
        count = len(self._latest) + 1.0
        speed = growth(sum(self._latest) / count, (_PRIOR + sum(x * x for x in self._latest)) / count)
        return max(log_wealth - self.log_wealth, 0.0) / speed if speed else math.inf

    @property
    def _mean(self) -> float:
        return self._sum / (1.0 + self.num_differences)

    @property
    def _mean_square(self) -> float:
        return (_PRIOR + self._squares) / (1.0 + self.num_differences)

    def _scaled(self, difference: float) -> float:
        if not abs(difference) <= self._bound:
            raise ValueError(f"the difference is {difference}; allowed: from {-self._bound} to {self._bound}")
        return (difference - self._margin) / (self._bound + self._margin)
