"""The native linears alone: how much of the machine's read bandwidth do a model's weights stream at?"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from paceline.bench.timing import timed
from paceline.model.linears import NativeLinear
from paceline.native.ops import PackedWeight, Runner

_TURNS = 21
_BYTES = 2**28  # read at a time, well beyond any cache
_READ = 0  # stands for reading alone among the row counts


def linear_shares(model: nn.Module, row_counts: tuple[int, ...]) -> dict[int, float]:
    """Bandwidth of the linears' weights by row count, as a share of that of reading alone; empty without such linears.

    Reading takes its turns among them, since what a machine's neighbours leave changes from second to second.
    """
    weights = [module.packed for module in model.modules() if isinstance(module, NativeLinear)]
    if not weights:
        return {}
    source = torch.ones(_BYTES // 4)
    contenders: dict[int, Callable[[], object]] = {rows: _all(weights, rows) for rows in row_counts}
    contenders[_READ] = lambda: source.sum().item()
    seconds: dict[int, list[float]] = {key: [] for key in contenders}
    for turn in range(_TURNS + 1):
        for key, run in contenders.items():
            taken = timed(run)[1]
            if turn:  # the first one warms up
                seconds[key].append(taken)
    rate = _BYTES / median(seconds.pop(_READ))
    size = sum(weight.num_bytes for weight in weights)
    return {rows: size / median(times) / rate for rows, times in seconds.items()}


def _all(weights: list[PackedWeight], rows: int) -> Runner:
    """Every linear once, in one call."""
    ops = []
    for weight in weights:
        x = torch.randn(rows, weight.k).to(weight.dtype)
        ops.append(weight.linear(torch.empty(rows, weight.num_columns, dtype=weight.dtype), x))
    return Runner(weights[0].library, ops)
