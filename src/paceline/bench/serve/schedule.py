"""When requests are sent in an open loop: whatever the server does, they come."""

from __future__ import annotations

import math

import numpy as np


def arrivals(count: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds from the start at which each of `count` requests is due, ascending; all 0 at an infinite rate.

    Gaps are gamma distributed with shape `burstiness`: 1 is a Poisson process, less comes in bursts, infinity is even.
    They are scaled so that the last is due at count / rate, as `vllm bench serve` does, so that seeds compare.
    """
    if math.isinf(rate):
        return [0.0] * count
    gaps = np.ones(count) if math.isinf(burstiness) else np.random.default_rng(seed).gamma(burstiness, 1.0, count)
    due = np.cumsum(gaps)
    return [float(at) for at in due * (count / rate / due[-1])]
