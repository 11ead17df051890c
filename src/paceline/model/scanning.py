"""Recurrent layers in PyTorch's operations, row by row: the readable reference of csrc/scan.h and csrc/convolve.h.

Every row is one set of operations whose shapes never change, so its bits depend on its path alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from paceline.model.states import ConvolutionState, ScanShape, ScanState, StatePool
from paceline.native.states import StateRows


@dataclass(frozen=True)
class Scan:
    """The rows of a linear recurrence S = decay * S + key u, read by a query; float32.

    u is `value`, or by the delta rule `beta * (value - key S)`. The decay is the exponential of `decay`: one number a
    head, one for each row of S (D = I), or, with a `rate` (I, J), `decay` (D = J) times it for each element.
    """

    query: torch.Tensor  # (R, Hk, I)
    key: torch.Tensor  # (R, Hk, I)
    value: torch.Tensor  # (R, H, J)
    decay: torch.Tensor  # (R, H, D)
    beta: torch.Tensor | None = None  # (R, H)
    rate: torch.Tensor | None = None

    @property
    def shape(self) -> ScanShape:
        """What a layer keeps for it."""
        (heads, values), (key_heads, keys) = self.value.shape[1:], self.key.shape[1:]
        return ScanShape(heads, key_heads, keys, values, self.decay.shape[2], self.beta is not None)

    @property
    def traces(self) -> torch.Tensor:
        """(R, floats) what each row changes a state by."""
        parts = [self.key, self.value, self.decay] + ([] if self.beta is None else [self.beta])
        return torch.cat([part.flatten(1) for part in parts], 1)


class ScannedRows:
    """One forward's recurrent layers, called in the order of the model's."""

    def __init__(self, pool: StatePool, sequences: Sequence[StateRows]) -> None:
        self._convolutions, self._scans = iter(pool.convolutions), iter(pool.scans)
        self._sequences = sequences

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(R, C) of `x` (R, C) and `weight` (C, K)."""
        layer, out = next(self._convolutions), x.new_zeros(x.shape)
        taps, added = weight.float().t(), None if bias is None else bias.float()
        for rows in self._sequences:
            _convolve(layer, rows, x, taps, added, out)
        return out

    def scan(self, given: Scan) -> torch.Tensor:
        """(R, H, J) float32."""
        layer, out = next(self._scans), given.value.new_zeros(given.value.shape)
        rate = None if given.rate is None else _rate(given.rate, layer.shape)
        for rows in self._sequences:
            _scan(layer, rows, given, rate, out)
        return out


def _convolve(
    layer: ConvolutionState,
    rows: StateRows,
    x: torch.Tensor,
    taps: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
) -> None:
    state, traces = layer.states[rows.slot], layer.traces[rows.slot]
    traces[rows.half, rows.first : len(rows.parents)] = x[rows.first_row : rows.first_row + rows.num_rows].float()
    before = [torch.zeros_like(state) if rows.is_fresh else state, traces[1 - rows.half, list(rows.accepted)]]
    history = torch.cat([*before, traces[rows.half, : len(rows.parents)]])
    start, width = len(before[0]) + len(before[1]), len(state)
    state.copy_(history[start - width : start])
    for row in range(rows.first, len(rows.parents)):
        places = [start + row]
        while len(places) <= width:
            places.append(start + rows.parents[places[-1] - start] if places[-1] >= start else places[-1] - 1)
        total = (history[places[::-1]] * taps).sum(0)
        out[rows.first_row + row - rows.first] = total if bias is None else total + bias
    if rows.is_kept:
        state.copy_(history[len(history) - width :])


def _scan(layer: ScanState, rows: StateRows, given: Scan, rate: torch.Tensor | None, out: torch.Tensor) -> None:
    kept, traces = layer.states[rows.slot], layer.traces[rows.slot]
    new = slice(rows.first_row, rows.first_row + rows.num_rows)
    traces[rows.half, rows.first : len(rows.parents)] = given.traces[new]
    state = torch.zeros_like(kept) if rows.is_fresh else kept.clone()
    for row in rows.accepted:
        state = _updated(state, layer.shape, traces[1 - rows.half, row], rate)
    kept.copy_(state)
    after = [state]
    for row, parent in enumerate(rows.parents):
        after.append(_updated(after[parent + 1], layer.shape, traces[rows.half, row], rate))
        if row >= rows.first:
            place = rows.first_row + row - rows.first
            read = (after[-1] * _by_rows(given.query[place], layer.shape)).sum(2)
            out[place] = read.flatten(1)[:, : layer.shape.value_dim]
    if rows.is_kept:
        kept.copy_(after[-1])


def _updated(state: torch.Tensor, shape: ScanShape, trace: torch.Tensor, rate: torch.Tensor | None) -> torch.Tensor:
    """The state (H, blocks, I, 16) behind a row."""
    heads = shape.heads
    sizes = [shape.key_heads * shape.key_dim, heads * shape.value_dim, heads * shape.decays, heads * shape.has_delta]
    keys, values, decays, betas = torch.split(trace, sizes)
    key = _by_rows(keys.view(shape.key_heads, -1), shape)
    state = state * _decay(decays.view(heads, -1), shape, rate)
    added = _by_columns(values.view(heads, -1), shape)
    if shape.has_delta:
        added = betas.view(-1, 1, 1, 1) * (added - (state * key).sum(2, keepdim=True))
    return state + key * added


def _decay(decays: torch.Tensor, shape: ScanShape, rate: torch.Tensor | None) -> torch.Tensor:
    if rate is not None:
        return torch.exp(rate * _by_columns(decays, shape))
    if shape.decays == 1:
        return torch.exp(decays.view(-1, 1, 1, 1))
    return torch.exp(pad(decays, (0, shape.size[2] - shape.key_dim)).view(shape.heads, 1, -1, 1))


def _rate(rate: torch.Tensor, shape: ScanShape) -> torch.Tensor:
    """(I, J) to (1, blocks, I, 16), zeros beyond."""
    return pad(_by_columns(rate, shape).transpose(0, 2)[0], (0, 0, 0, shape.size[2] - shape.key_dim)).unsqueeze(0)


def _by_rows(keys: torch.Tensor, shape: ScanShape) -> torch.Tensor:
    """(Hk, I) to (H, 1, I, 1), zeros beyond."""
    wide = pad(keys, (0, shape.size[2] - shape.key_dim))
    return wide.repeat_interleave(shape.heads // shape.key_heads, 0)[:, None, :, None]


def _by_columns(values: torch.Tensor, shape: ScanShape) -> torch.Tensor:
    """(H, J) to (H, blocks, 1, 16), zeros beyond."""
    _, blocks, _, lanes = shape.size
    return pad(values, (0, blocks * lanes - shape.value_dim)).view(len(values), blocks, 1, lanes)
