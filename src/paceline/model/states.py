"""What recurrent layers keep of a sequence beside pages: a state of fixed size at its last committed position.

A state cannot be cut back as keys can. So the rows of a draft tree leave no state behind, only what they would change
it by: a few vectors each, their *traces*, in one half of a sequence's room. When some of them are accepted their
numbers are noted, and the next forward brings the state up to date before its own rows, whose traces go to the other
half. An update costs little beside reading the weights; a state kept for each row would cost its size, over and over
(as in ReplaySSM, vLLM's RFC 47572). Knows nothing of models.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from paceline.model.prefix import PAGE_SIZE
from paceline.native.states import StateRows, state_size

_LEAST, _MOST = 4, 64  # states of either kind; a probe holds three at once
NUM_TRACES = PAGE_SIZE  # rows of a tree, at most


@dataclass(frozen=True)
class ConvolutionShape:
    """A short causal convolution of each channel by itself: the last `width` - 1 inputs are its state."""

    channels: int
    width: int


@dataclass(frozen=True)
class ScanShape:
    """A linear recurrence: a matrix (key_dim, value_dim) a head, in float32.

    `key_heads` are shared by groups of heads. `decays` are the numbers that a row's decay has in each head.
    """

    heads: int
    key_heads: int
    key_dim: int
    value_dim: int
    decays: int
    has_delta: bool

    @property
    def size(self) -> tuple[int, int, int, int]:
        """How a state lies in memory: (heads, blocks, key_dim, 16), blocks of columns, filled up with zeros."""
        return state_size(self.heads, self.key_dim, self.value_dim)

    @property
    def trace_floats(self) -> int:
        """Floats of a row's trace: keys, values, decays, and how far each head follows the delta rule."""
        return self.key_heads * self.key_dim + self.heads * (self.value_dim + self.decays + self.has_delta)


@dataclass(frozen=True)
class StateShapes:
    """The recurrent layers of a model, in the order in which they are called."""

    convolutions: list[ConvolutionShape] = field(default_factory=list)
    scans: list[ScanShape] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.convolutions or self.scans)

    @property
    def num_bytes(self) -> tuple[int, int]:
        """Bytes of a state, and of a sequence's traces."""
        states = sum(c.channels * (c.width - 1) for c in self.convolutions)
        states += sum(math.prod(s.size) for s in self.scans)
        row = sum(c.channels for c in self.convolutions) + sum(s.trace_floats for s in self.scans)
        return 4 * states, 2 * NUM_TRACES * row * 4


def read_shapes(says: Any) -> StateShapes:
    """The shapes that were written as plain data."""
    convolutions = [ConvolutionShape(**shape) for shape in says["convolutions"]]
    return StateShapes(convolutions, [ScanShape(**shape) for shape in says["scans"]])


class SequenceState:
    """Which slot holds a sequence's state, and which traces are still to be added to it."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.is_fresh = True
        self._half = 0
        self._accepted: Sequence[int] = ()

    @property
    def is_up_to_date(self) -> bool:
        """True if the slot holds the state of all that is committed."""
        return not self.is_fresh and not self._accepted

    def restored(self) -> None:
        """The slot was filled from elsewhere."""
        self.is_fresh, self._accepted = False, ()

    def accept(self, rows: Sequence[int]) -> None:
        """Commit rows of the tree that was fed last, by their number in it."""
        if len(rows):
            self._accepted = rows

    def feed(self, first_row: int, parents: Sequence[int], first: int, is_kept: bool = False) -> StateRows:
        """The rows of the next forward; the state is up to date when it has run."""
        if first == 0:
            self._half = 1 - self._half
        accepted, self._accepted = self._accepted, ()
        is_fresh, self.is_fresh = self.is_fresh, False
        return StateRows(first_row, self.slot, self._half, first, parents, accepted, is_fresh, is_kept)


class LayerState(Protocol):
    """What a layer keeps of all sequences."""

    states: torch.Tensor  # (slots, ...)
    traces: torch.Tensor  # (slots, 2, 64, ...)


class ConvolutionState:
    """One layer's last inputs (slots, width - 1, C), oldest first, and traces (slots, 2, 64, C), float32."""

    def __init__(self, shape: ConvolutionShape, num_states: int, num_slots: int, device: torch.device) -> None:
        self.shape = shape
        self.states = torch.zeros(num_states, shape.width - 1, shape.channels, device=device)
        self.traces = torch.zeros(num_slots, 2, NUM_TRACES, shape.channels, device=device)


class ScanState:
    """One layer's states (slots, *size) and traces (slots, 2, 64, floats), float32."""

    def __init__(self, shape: ScanShape, num_states: int, num_slots: int, device: torch.device) -> None:
        self.shape = shape
        self.states = torch.zeros(num_states, *shape.size, device=device)
        self.traces = torch.zeros(num_slots, 2, NUM_TRACES, shape.trace_floats, device=device)


def state_pool(shapes: StateShapes, free_bytes: int, device: torch.device) -> StatePool | None:
    """States of as many sequences as an eighth of the free memory holds, and as much for those that are kept.

    None for a model without recurrent layers.
    """
    if not shapes:
        return None
    state, traces = shapes.num_bytes
    slots, kept = (min(max(free_bytes // 8 // size, _LEAST), _MOST) for size in (state + traces, state))
    return StatePool(shapes, slots, kept, device)


class StatePool:
    """All recurrent layers' states: of sequences, and behind them those that are kept for the prefix cache."""

    def __init__(self, shapes: StateShapes, num_slots: int, num_kept: int, device: torch.device) -> None:
        total = num_slots + num_kept
        self.convolutions = [ConvolutionState(shape, total, num_slots, device) for shape in shapes.convolutions]
        self.scans = [ScanState(shape, total, num_slots, device) for shape in shapes.scans]
        self._layers: list[LayerState] = [*self.convolutions, *self.scans]
        self._shapes = shapes
        self.num_slots = num_slots
        self._free = list(range(num_slots - 1, -1, -1))
        self._free_kept = list(range(total - 1, num_slots - 1, -1))
        self._kept: OrderedDict[int, int] = OrderedDict()  # slot by the serial number of a page, longest unused first

    def another(self, num_slots: int) -> StatePool:
        """States of the same layers for other sequences."""
        return StatePool(self._shapes, num_slots, num_slots, self.tensors[0].device)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All memory."""
        return [t for layer in self._layers for t in (layer.states, layer.traces)]

    @property
    def num_bytes(self) -> int:
        """Size when every slot has been touched."""
        return sum(t.numel() * t.element_size() for t in self.tensors)

    @property
    def num_free(self) -> int:
        """Sequences that can still begin."""
        return len(self._free)

    def take(self) -> SequenceState:
        """A fresh state, of those that are free."""
        return SequenceState(self._free.pop())

    def give_back(self, state: SequenceState) -> None:
        """Let another sequence have it."""
        self._free.append(state.slot)

    def __contains__(self, serial: int) -> bool:
        """True if the state at the end of a page is kept."""
        return serial in self._kept

    def keep(self, state: SequenceState, serial: int) -> None:
        """Keep a state at the end of the page of this serial number; it must be up to date."""
        if serial not in self._kept:
            slot = self._free_kept.pop() if self._free_kept else self._kept.popitem(last=False)[1]
            self._copy(state.slot, slot)
            self._kept[serial] = slot
        self._kept.move_to_end(serial)

    def restore(self, state: SequenceState, serial: int) -> None:
        """Make a state what was kept."""
        self._kept.move_to_end(serial)
        self._copy(self._kept[serial], state.slot)
        state.restored()

    def _copy(self, source: int, destination: int) -> None:
        for layer in self._layers:
            layer.states[destination].copy_(layer.states[source])
