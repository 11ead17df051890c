"""The native linears alone: how much of the machine's read bandwidth do a model's weights stream at?"""

from __future__ import annotations

import torch
from torch import nn

from paceline.bench.timing import timed
from paceline.native.ops import PackedWeight, Runner
from paceline.target.linears import NativeLinear

_TRIES = 9


def linear_bandwidth(model: nn.Module, row_counts: tuple[int, ...]) -> dict[int, float]:
    """Bytes of weights per second by row count, the best of several turns; empty without native linears."""
    weights = [module.packed for module in model.modules() if isinstance(module, NativeLinear)]
    if not weights:
        return {}
    size = sum(weight.num_bytes for weight in weights)
    runners = {rows: _all(weights, rows) for rows in row_counts}
    seconds = {rows: [timed(runner)[1]] for rows, runner in runners.items()}
    for _ in range(_TRIES):
        for rows, runner in runners.items():
            seconds[rows].append(timed(runner)[1])
    return {rows: size / min(times) for rows, times in seconds.items()}


def _all(weights: list[PackedWeight], rows: int) -> Runner:
    """Every linear once, in one call."""
    ops = []
    for weight in weights:
        x = torch.randn(rows, weight.k).to(weight.dtype)
        ops.append(weight.linear(torch.empty(rows, weight.num_columns, dtype=weight.dtype), x))
    return Runner(weights[0].library, ops)
