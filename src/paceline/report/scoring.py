"""How well a number foretells errors: AUROC with a bootstrap interval, risk by coverage, and the area under that.

Larger numbers mean less sure. Ties count as what a random order of them gives on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Errors = NDArray[np.bool_]

_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Score:
    """How well one measure foretells errors."""

    measure: str
    auroc: float  # nan without both errors and right answers
    interval: tuple[float, float]  # 95 %
    aurc: float
    half_risk: float  # the share of errors among the surest half
    curve: list[tuple[float, float]]  # (coverage, risk)


def score(measure: str, uncertainty: Sequence[float], is_error: Sequence[bool], groups: Sequence[int]) -> Score:
    """A measure's score; `groups` says which cases belong together, and are drawn together for the interval."""
    values, errors = np.array(uncertainty, np.float64), np.array(is_error, np.bool_)
    risks = risk(values, errors)
    size = len(risks)
    if not size:
        return Score(measure, math.nan, (math.nan, math.nan), math.nan, math.nan, [])
    curve = [((k + 1) / size, float(risks[k])) for k in range(size)]
    half = float(risks[(size - 1) // 2])
    interval = bootstrap(values, errors, np.array(groups))
    return Score(measure, auroc(values, errors), interval, float(risks.mean()), half, curve)


def auroc(uncertainty: Values, is_error: Errors) -> float:
    """The chance that an error is less sure than a right answer, a tie counting half (Mann and Whitney 1947).

    auroc([1, 2, 3, 2], [False, True, True, False]) is 0.875.
    """
    num_errors = int(is_error.sum())
    num_right = is_error.size - num_errors
    if not num_errors or not num_right:
        return math.nan
    _, places, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[is_error].sum() - num_errors * (num_errors + 1) / 2) / (num_errors * num_right))


def risk(uncertainty: Values, is_error: Errors) -> Values:
    """The share of errors among the k surest, k = 1 to n; its mean is the AURC (Geifman and El-Yaniv 2017)."""
    _, places, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    rates = np.bincount(places, weights=is_error) / counts
    shares: Values = np.cumsum(np.repeat(rates, counts)) / np.arange(1, is_error.size + 1)
    return shares


def bootstrap(uncertainty: Values, is_error: Errors, groups: NDArray[np.int64]) -> tuple[float, float]:
    """The middle 95 % of the AUROC over whole groups drawn with replacement (Efron 1979), the same at every call."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        value = auroc(uncertainty[drawn], is_error[drawn])
        if not math.isnan(value):
            found.append(value)
    if not found:
        return math.nan, math.nan
    low, high = np.percentile(found, _INTERVAL)
    return float(low), float(high)
