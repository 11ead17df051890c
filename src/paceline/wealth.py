"""Evidence as wealth: money that was bet against a hypothesis at odds that are fair under it, kept as its logarithm.

By Ville's inequality wealth ever reaches 1 / a with probability a at most, however often one looks and whenever one
stops (Shafer 2021, "Testing by betting"; Ramdas et al. 2023, arXiv 2210.01948).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_sum_exp(values: Floats) -> float:
    """log(sum(exp(values)))."""
    peak = float(np.max(values))
    return peak if np.isinf(peak) else peak + float(np.log(np.sum(np.exp(values - peak))))


def log_mean_exp(values: Floats) -> float:
    """log(mean(exp(values)))."""
    return log_sum_exp(values) - float(np.log(values.size))


def p_value(log_wealth: float) -> float:
    """The anytime-valid p-value of a wealth: its inverse, at most 1."""
    return float(np.exp(-max(log_wealth, 0.0)))
