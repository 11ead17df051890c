"""How a head's own forwards run over rows of its target's pages: recorded for the native kernels, or by its modules.

Nothing depends on their bits, so nothing is proven about them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from paceline.errors import DrafterError
from paceline.model.emitting import EmittingStep, Frames
from paceline.model.forward import ROW_COUNTS
from paceline.model.interface import SilentStep, answered_by
from paceline.model.pool import LayerCache
from paceline.model.prefix import PAGE_SIZE
from paceline.native.frame import Frame, FrameSequence
from paceline.native.library import Library, library
from paceline.native.ops import Runner
from paceline.native.products import Weights
from paceline.native.program import Program
from paceline.native.recording import NotRecordableError, Recording
from paceline.native.scaling import NotScalableError, ProgramFamily, Recorded, ScaledProgram
from paceline.native.states import StateFrame

Compute = Callable[..., torch.Tensor]  # from the rows of each input, (R, ...) each, to (R, W) float32

MAX_ROWS = ROW_COUNTS[-1]
_FEW = 2


class HeadForward(Protocol):
    """A head ready to run."""

    inputs: Sequence[torch.Tensor]  # (MAX_ROWS, ...) each: what a run reads, to be filled before it

    def run(self, rows: Sequence[FrameSequence]) -> torch.Tensor:
        """(R, W) float32 of the first R rows of the inputs, valid until the next run.

        `rows` says where each keeps its key and value, and what it sees; at most MAX_ROWS in all.
        """


def head_forward(
    compute: Compute, inputs: Sequence[torch.Tensor], layers: Sequence[LayerCache], num_pages: int
) -> HeadForward:
    """The way to run a head whose attention layers keep keys and values in `layers`, pages of a pool of `num_pages`."""
    found = library()
    if found is not None and inputs[0].device.type == "cpu":
        try:
            return RecordedHead(compute, inputs, layers, Frame(found, num_pages), found)
        except NotRecordableError:
            pass  # it looks at values in Python
    return ModuleHead(compute, inputs, layers)


class RecordedHead:
    """Programs of a head, one for each number of rows; see `RecordedForward`."""

    def __init__(
        self,
        compute: Compute,
        inputs: Sequence[torch.Tensor],
        layers: Sequence[LayerCache],
        frame: Frame,
        found: Library,
    ) -> None:
        self.inputs, self.frame = inputs, frame
        self._compute, self._layers, self.library = compute, layers, found
        self._weights: Weights = {}
        frame.set([])
        self._programs: dict[int, Program | ScaledProgram] = {1: self._compiled(1)}
        self._family = self._worked_out()

    def run(self, rows: Sequence[FrameSequence]) -> torch.Tensor:
        """See `HeadForward`."""
        self.frame.set(rows)
        program = self._program(_padded(self.frame.num_rows))
        program.run()
        return program.result[: self.frame.num_rows]

    @property
    def is_one_call(self) -> bool:
        """True if a run is one native call at every number of rows."""
        return self._family is not None and self._programs[1].runner is not None

    def parts(self, num_rows: int) -> tuple[Runner, torch.Tensor]:
        """What a run of so many rows is, as one native call, and its result.

        Raises:
            DrafterError: it is not one.
        """
        program = self._program(_padded(num_rows))
        if program.runner is None:
            raise DrafterError("the head's forward is no single native call")
        return program.runner, program.result

    def _program(self, num_rows: int) -> Program | ScaledProgram:
        if num_rows not in self._programs:
            is_between = self._family is not None and num_rows >= _FEW
            make = self._family.program if self._family is not None and is_between else self._compiled
            self._programs[num_rows] = make(num_rows)
        return self._programs[num_rows]

    def _compiled(self, num_rows: int) -> Program:
        recorded = self._record(num_rows)
        return Program(self.library, recorded.recording, recorded.result)

    def _worked_out(self) -> ProgramFamily | None:
        try:
            return ProgramFamily(self.library, self._record(_FEW), self._record(MAX_ROWS))
        except NotScalableError:
            return None

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, num_rows: int) -> Recorded:
        given = [tensor[:num_rows] for tensor in self.inputs]
        memory = [self.frame.header, *(t for layer in self._layers for t in (layer.keys, layer.values))]
        with Recording(given, memory, self._weights) as recording:
            frames = Frames(self.frame, self.frame, StateFrame(0))
            step = EmittingStep(self.library, self._layers, None, frames, recording)
            with answered_by(step):
                result = self._compute(*given)
        return Recorded(num_rows, recording, result, len(recording.steps))


class ModuleHead:
    """A head's own modules, on any device."""

    def __init__(self, compute: Compute, inputs: Sequence[torch.Tensor], layers: Sequence[LayerCache]) -> None:
        self.inputs = inputs
        self._compute, self._layers = compute, layers

    @torch.inference_mode()
    def run(self, rows: Sequence[FrameSequence]) -> torch.Tensor:
        """See `HeadForward`."""
        count = sum(len(item.positions) for item in rows)
        with answered_by(_SeenStep(self._layers, rows)):
            return self._compute(*(tensor[:count] for tensor in self.inputs))


class _SeenStep(SilentStep):
    """Stores the rows' keys and values, and attends over what each sees, sequence by sequence."""

    def __init__(self, layers: Sequence[LayerCache], rows: Sequence[FrameSequence]) -> None:
        self._layers, self._rows = iter(layers), rows
        self._slots = torch.tensor([slot for item in rows for slot in item.slots])

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """See `ForwardStep`."""
        layer = next(self._layers)
        heads = layer.shape.num_kv_heads
        layer.write(_flat(self._slots, heads).to(query.device).flatten(), key, value)
        parts, first = [], 0
        for item in self._rows:
            parts.append(_attended(query[first : first + len(item.positions)], layer, item, how))
            first += len(item.positions)
        return torch.cat(parts).to(query.dtype)


def _attended(query: torch.Tensor, layer: LayerCache, item: FrameSequence, how: dict[str, Any]) -> torch.Tensor:
    """(R, H, D_v) of one sequence's rows."""
    committed = torch.arange(item.committed)
    pages = torch.from_numpy(item.pages)
    slots = pages[committed // PAGE_SIZE] * PAGE_SIZE + committed % PAGE_SIZE
    index = _flat(torch.cat([slots, torch.tensor(item.drafts, dtype=torch.int64)]), layer.shape.num_kv_heads)
    found = layer.read(index.flatten().to(query.device))
    keys, values = (tensor.view(*index.shape, -1).transpose(0, 1) for tensor in found)
    scores = query.float().transpose(0, 1) * how["scaling"]
    return nn.functional.scaled_dot_product_attention(
        scores[None], keys[None], values[None], _sight(item, how["window"]).to(query.device), scale=1.0, enable_gqa=True
    )[0].transpose(0, 1)


def _sight(item: FrameSequence, window: int) -> torch.Tensor:
    """(R, committed + drafts) True where a row sees a key."""
    positions = torch.tensor(item.positions)[:, None]
    committed = torch.arange(item.committed)[None]
    near = committed > positions - window if window else torch.ones(1, 1, dtype=torch.bool)
    seen = (committed <= positions) & near
    drafted = torch.zeros(len(item.positions), len(item.drafts), dtype=torch.bool)
    for row, path in enumerate(item.paths):
        drafted[row, list(path)] = True
    return torch.cat([seen, drafted], 1)


def _flat(slots: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """(slots, H_kv) rows of a layer's flat view; see `head_index`."""
    page, place = slots // PAGE_SIZE, slots % PAGE_SIZE
    return (page * (num_kv_heads * PAGE_SIZE) + place)[:, None] + torch.arange(num_kv_heads) * PAGE_SIZE


def _padded(count: int) -> int:
    """The number of rows that a program is made for."""
    if not 0 < count <= MAX_ROWS:
        raise DrafterError(f"{count} rows of a head; allowed: 1 to {MAX_ROWS}")
    return ROW_COUNTS[bisect_left(ROW_COUNTS, count)]
