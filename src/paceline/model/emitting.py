"""The model's layers as native operations: what answers them while a forward is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from paceline.model.pool import LayerCache
from paceline.model.scanning import Scan
from paceline.model.states import StatePool
from paceline.native.attention import attend_ops, write_op
from paceline.native.frame import Frame
from paceline.native.layout import Op
from paceline.native.library import Library
from paceline.native.recording import NotRecordableError, Recording, emit
from paceline.native.states import DELTA, PLAIN, RATE, StateFrame, convolve_op, scan_op


class Frames(NamedTuple):
    """What the kernels know of a forward's rows."""

    own: Frame
    sources: Frame  # the same rows as they look at their sources
    states: StateFrame


class EmittingStep:
    """Answers attention layers with native operations over the pool; which rows there are is up to the frame."""

    def __init__(
        self,
        found: Library,
        layers: Sequence[LayerCache],
        states: StatePool | None,
        frames: Frames,
        recording: Recording,
    ) -> None:
        self.keeps = False
        self.num_steps = 0  # of the recording, up to and with the last layer's keys and values, or state
        self._library, self._recording = found, recording
        self._frame, self._source_frame, self._state_frame = frames
        self._layers, self._source_layers = iter(layers), iter(layers)
        self._convolutions = iter([] if states is None else states.convolutions)
        self._scans = iter([] if states is None else states.scans)

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """See `ForwardStep`."""
        if "picks" in how:
            raise NotRecordableError("the kernels pick no keys")
        layer = next(self._layers)
        emit(self._library, self._write, [layer.keys, layer.values], [key, value, self._frame.header])
        self.num_steps = len(self._recording.steps)
        return self._attended(query, layer, self._frame, how)

    def attend_source(self, query: torch.Tensor, **how: Any) -> torch.Tensor:
        """See `ForwardStep`."""
        return self._attended(query, next(self._source_layers), self._source_frame, how)

    def _attended(self, query: torch.Tensor, layer: LayerCache, frame: Frame, how: dict[str, Any]) -> torch.Tensor:
        out = torch.empty(*query.shape[:2], layer.shape.value_dim, dtype=query.dtype)
        for index in range(2):
            make = partial(_attend, layer, frame, index, how)
            # The header stands for the partial results behind it.
            emit(self._library, make, [out, frame.header], [query, layer.keys, layer.values])
        return out

    def convolve(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """See `ForwardStep`."""
        layer = next(self._convolutions)
        out = torch.empty(x.shape, dtype=x.dtype)
        constants = [weight.t().float().contiguous(), *([] if bias is None else [bias.float()])]
        emit(self._library, self._convolve, [out, layer.states, layer.traces], [x, *constants])
        self.num_steps = len(self._recording.steps)
        return out

    def _convolve(self, out: torch.Tensor, states: torch.Tensor, traces: torch.Tensor, *reads: torch.Tensor) -> Op:
        x, weight, *bias = reads
        return convolve_op(out, x, weight, states, traces, bias[0] if bias else None, self._state_frame)

    def scan(self, given: Scan) -> torch.Tensor:
        """See `ForwardStep`."""
        layer = next(self._scans)
        out = torch.empty(given.value.shape)
        factors = [t for t in (given.beta, given.rate) if t is not None]
        function = PLAIN if not factors else DELTA if given.rate is None else RATE
        rows = [given.query, given.key, given.value, given.decay, *factors]
        emit(self._library, partial(self._scan, function), [out, layer.states, layer.traces], rows)
        self.num_steps = len(self._recording.steps)
        return out

    def _scan(
        self, function: int, out: torch.Tensor, states: torch.Tensor, traces: torch.Tensor, *rows: torch.Tensor
    ) -> Op:
        query, key, value, decay, *factor = rows
        last = factor[0] if factor else None
        return scan_op(out, query, key, value, decay, states, traces, last, function, self._state_frame)

    def keep(self, layer: LayerCache, keys: torch.Tensor, values: torch.Tensor) -> None:
        """See `ForwardStep`."""
        emit(self._library, self._write, [layer.keys, layer.values], [keys, values, self._frame.header])
        self.num_steps = len(self._recording.steps)

    def _write(self, keys: torch.Tensor, values: torch.Tensor, *rows: torch.Tensor) -> Op:
        return write_op(keys, values, rows[0], rows[1], self._frame)


def _attend(layer: LayerCache, frame: Frame, index: int, how: dict[str, Any], *tensors: torch.Tensor) -> Op:
    return attend_ops(tensors[0], tensors[2], layer.keys, layer.values, frame, **how)[index]
