"""Whether weights that draft have become worse: a detector for slow decay, and a brake for a crash."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from paceline.wealth import Floats, log_mean_exp

FALSE_ALARM = 5e-4  # one over the anchors between two alarms, at least, on average, where nothing is worse

_STAKES = (0.1, 0.3, 0.6, 0.9)  # set beforehand: a bet that had to learn its own would learn to stay out meanwhile


class Detector:
    """Alarms when differences in [-bound, bound], of the former head less the incumbent, come to exceed a margin.

    Wealth of a bet that begins anew at each difference, summed: an e-detector (Shin, Ramdas and Rinaldo, arXiv
    2203.03532). While each difference is at most the margin on average, given those before it, alarms are at least
    1 / alpha differences apart on average.
    """

    def __init__(self, bound: float, margin: float, alpha: float = FALSE_ALARM) -> None:
        self._bound, self._margin = bound, margin
        self._threshold = -math.log(alpha)
        self._log_sums: Floats = np.full(len(_STAKES), -np.inf)  # of wealth, by stake

    @property
    def log_evidence(self) -> float:
        """The logarithm of the sum; below any number before the first difference."""
        return log_mean_exp(self._log_sums)

    @property
    def is_alarmed(self) -> bool:
        """Whether the incumbent has become worse."""
        return self.log_evidence >= self._threshold

    def see(self, difference: float) -> None:
        """Take the next difference."""
        scaled = (difference - self._margin) / (self._bound + self._margin)
        self._log_sums = np.logaddexp(self._log_sums, 0.0) + np.log1p(np.array(_STAKES) * scaled)


class Brake:
    """Stops a head whose overlap with the target's law has fallen below half of what it was believed to be."""

    WINDOW = 200  # anchors

    def __init__(self, belief: float) -> None:
        self._belief = belief
        self._latest: deque[float] = deque(maxlen=self.WINDOW)

    @property
    def is_pulled(self) -> bool:
        """Whether the mean of a whole window is too low."""
        return len(self._latest) == self.WINDOW and sum(self._latest) < self.WINDOW * self._belief / 2.0

    def see(self, overlap: float) -> None:
        """Take the mean overlap of an anchor, from 0 to 1."""
        self._latest.append(overlap)
