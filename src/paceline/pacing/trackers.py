"""Robust running estimates of times and averages, on noisy machines. O(1) in memory and time.

Knows nothing of what is measured.
"""

from __future__ import annotations


class Quantile:
    """Follows a quantile of positive samples by steps in proportion to itself: an outlier moves it like any other.

    A stochastic approximation (Robbins and Monro 1951) in the logarithm. Steps shrink to `RATE`, with which it moves
    by a factor of ten in about a hundred samples. Where `is_guess`, the first sample takes the place of the value.
    """

    __slots__ = ("_rate", "_share", "value")

    RATE = 0.04

    def __init__(self, value: float, share: float, is_guess: bool = False) -> None:
        self.value = value
        self._share = share
        self._rate = 1.0 if is_guess else self.RATE

    def learn(self, sample: float) -> None:
        """Take in a sample."""
        if self._rate == 1.0:
            self.value = sample
        else:
            self.value *= 1.0 + self._rate * (self._share - (sample < self.value))
        self._rate = max(self.RATE, self._rate * 0.7)


class Mean:
    """An average that forgets: a sample `n` samples old weighs `keep ** n`; it starts at `prior`."""

    __slots__ = ("_keep", "total", "weight")

    def __init__(self, prior: float, weight: float, keep: float) -> None:
        self.total = prior * weight
        self.weight = weight
        self._keep = keep

    @property
    def value(self) -> float:
        """The average."""
        return self.total / self.weight

    def learn(self, sample: float) -> None:
        """Take in a sample."""
        self.total = self.total * self._keep + sample
        self.weight = self.weight * self._keep + 1.0
