"""Operations of recurrent layers, and the rows of one forward as they read them (csrc/states.h)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paceline.native.layout import MAX_LANES, PAGE, Kind, Op
from paceline.native.ops import FLOATS, make, require

MAX_TAPS = 8  # of a convolution
_CHAINS = 4  # rows of a state come in whole ones
_SEQUENCE_INTS = 10
PLAIN, DELTA, RATE = range(3)


@dataclass(frozen=True)
class StateRows:
    """The rows of one sequence in a forward, as recurrent layers see them.

    Traces of all rows of the tree are in half `half`, those before `first` since an earlier forward of the same tree.
    """

    first_row: int  # of the forward
    slot: int
    half: int
    first: int
    parents: Sequence[int]  # of each row of the tree; -1 is the last committed position
    accepted: Sequence[int]  # traces in the other half that belong to the state now
    is_fresh: bool  # nothing is committed: the state is zero
    is_kept: bool  # the rows are a chain, and the state after the last of them is the sequence's

    @property
    def num_rows(self) -> int:
        """Rows of the forward."""
        return len(self.parents) - self.first


def state_size(heads: int, key_dim: int, value_dim: int) -> tuple[int, int, int, int]:
    """The shape in which a state (heads, key_dim, value_dim) lies in memory: by blocks of columns."""
    return heads, -(-value_dim // MAX_LANES), -(-key_dim // _CHAINS) * _CHAINS, MAX_LANES


class StateFrame:
    """What recurrent kernels know of a forward's rows. The header's address is the frame's own for ever."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._header = np.zeros(2, np.int64)
        self._table = np.zeros(0, np.int64)

    @property
    def address(self) -> int:
        """Where operations find it."""
        return int(self._header.ctypes.data)

    def set(self, sequences: Sequence[StateRows]) -> None:
        """Describe the next forward.

        Raises:
            ValueError: a slot or row that would let a kernel read or write where it must not.
        """
        heads: list[int] = []
        rest: list[int] = []
        start = len(sequences) * _SEQUENCE_INTS
        for rows in sequences:
            self._check(rows)
            heads += (rows.first_row, len(rows.parents) - rows.first, rows.slot, rows.half, rows.first)
            heads += (rows.is_fresh, rows.is_kept, start + len(rest), len(rows.accepted))
            rest += rows.accepted
            heads.append(start + len(rest))
            rest += rows.parents
        table = heads + rest
        if len(table) > len(self._table):
            self._table = np.empty(2 * len(table), np.int64)
        self._table[: len(table)] = table
        self._header[:] = len(sequences), self._table.ctypes.data

    def _check(self, rows: StateRows) -> None:
        count = len(rows.parents)
        if not 0 <= rows.slot < self._num_slots or not 0 <= rows.first <= count <= PAGE or len(rows.accepted) > PAGE:
            raise ValueError(f"{count} rows from {rows.first} on in slot {rows.slot} of {self._num_slots}")
        if any(not -1 <= parent < i for i, parent in enumerate(rows.parents)):
            raise ValueError("a parent that does not stand before its child")
        if any(not 0 <= row < PAGE for row in rows.accepted):
            raise ValueError("an accepted row that is none")


def convolve_op(
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    states: torch.Tensor,
    traces: torch.Tensor,
    bias: torch.Tensor | None,
    frame: StateFrame,
) -> Op:
    """`out` (R, C) = each channel of `x` (R, C) by `weight` (K, C) over the row's path, plus `bias` (C)."""
    (num_rows, channels), taps = x.shape, len(weight)
    require(x.dtype in FLOATS and out.dtype in FLOATS and out.stride(1) == 1, f"x is {x.dtype}, out {out.dtype}")
    require(0 < taps <= MAX_TAPS and weight.shape == (taps, channels), f"a weight of {tuple(weight.shape)}")
    require(states.shape[1:] == (taps - 1, channels) and states.is_contiguous(), f"states {tuple(states.shape)}")
    require(traces.shape[1:] == (2, PAGE, channels) and traces.is_contiguous(), f"traces {tuple(traces.shape)}")
    constants = [weight, states, traces] if bias is None else [weight, states, traces, bias]
    require(all(t.dtype == torch.float32 and t.stride(-1) == 1 for t in constants), "weights and states are float32")
    require(bias is None or bias.shape == (channels,), "a bias a channel")
    op = make(Kind.CONVOLVE, (num_rows, channels, taps), (out, x, weight, bias, states, traces))
    op.size[0] = frame.address
    return op


def scan_op(
    out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    decay: torch.Tensor,
    states: torch.Tensor,
    traces: torch.Tensor,
    factor: torch.Tensor | None,
    function: int,
    frame: StateFrame,
) -> Op:
    """`out` (R, H, J) of `query` and `key` (R, Hk, I), `value` (R, H, J), `decay` (R, H, D): see csrc/scan.h."""
    (num_rows, key_heads, keys), (heads, values), decays = key.shape, value.shape[1:], decay.shape[2]
    rows = (query, key, value, decay, out)
    require(all(len(t) == num_rows and t.dtype in FLOATS for t in rows), "rows of floats, as many of each")
    require(query.shape == key.shape and heads % key_heads == 0, f"query {tuple(query.shape)}, key {tuple(key.shape)}")
    require(out.shape == value.shape and out.stride(2) == 1, f"out {tuple(out.shape)}")
    wanted = {PLAIN: None, DELTA: (num_rows, heads), RATE: (keys, values)}[function]
    require((None if factor is None else tuple(factor.shape)) == wanted, f"a factor of {wanted}")
    require(decays in ((values,) if function == RATE else (1, keys)), f"{decays} decays of {keys} x {values}")
    require(decay.shape[1] == heads and (function != RATE or heads == 1), f"decay {tuple(decay.shape)}")
    floats = key_heads * keys + heads * (values + decays + (function == DELTA))
    require(states.shape[1:] == state_size(heads, keys, values), f"states {tuple(states.shape)}")
    require(traces.shape[1:] == (2, PAGE, floats), f"traces {tuple(traces.shape)}")
    require(all(t.dtype == torch.float32 and t.is_contiguous() for t in (states, traces)), "states are float32")
    shape = (num_rows, heads, keys, values, key_heads, decays)
    op = make(Kind.SCAN, shape, (out, query, key, value, decay, factor, states, traces))
    op.function, op.size[0] = function, frame.address
    return op
