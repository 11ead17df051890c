"""Bounds on a share of errors by how many there were among so many, exact at every number."""

from __future__ import annotations

import math

_STEPS = 60  # of a bisection: beyond float64


def at_most(errors: int, count: int, rate: float) -> float:
    """The probability of so few errors among `count` that are wrong at `rate` each, one apart from the other."""
    if errors < 0:
        return 0.0
    if errors >= count or rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 0.0
    odds = math.log(rate) - math.log1p(-rate)
    term = count * math.log1p(-rate)  # the logarithm of each term, from 0 errors on
    total = 0.0
    for wrong in range(errors + 1):
        total += math.exp(term)
        term += odds + math.log((count - wrong) / (wrong + 1))
    return min(total, 1.0)


def upper_bound(errors: int, count: int, confidence: float) -> float:
    """The highest rate that so few errors do not rule out (Clopper and Pearson 1934, one side); 1 of none at all."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(errors, count, middle) > 1.0 - confidence else (low, middle)
    return high if errors < count else 1.0


def most_errors(count: int, rate: float, confidence: float) -> int:
    """So many errors of `count` still show, at that confidence, that the rate is no higher; -1 if none do."""
    errors = -1
    while errors + 1 < count and at_most(errors + 1, count, rate) <= 1.0 - confidence:
        errors += 1
    return errors
