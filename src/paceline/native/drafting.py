"""Proposals of a draft model, each in one native call: csrc/draft.c over its recorded forwards."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch

from paceline.native.frame import Frame
from paceline.native.layout import PAGE, ROW_INTS, SEQUENCE_INTS, Draft, DraftModel, Recorded
from paceline.native.library import Library
from paceline.native.ops import DTYPES, Runner, require, scratch

# Makes the forward of so many rows: its inputs (rows,) int64, its operations, and its logits (rows, V).
Record = Callable[[int], tuple[torch.Tensor, torch.Tensor, Runner, torch.Tensor]]

_ROOM = PAGE * (ROW_INTS + 1 + PAGE)  # of a frame's table: rows, slots and paths of a forward
_ROOM_EACH = SEQUENCE_INTS + PAGE  # a sequence and the slots of what it was fed


class Drafting:
    """A draft model's recorded forwards, ready to grow trees.

    Args:
        library: the kernels.
        frame: that all recordings read.
        record: makes a recording.
        row_counts: those it may be asked for, ascending.
        last_position: positions fed are no larger.
    """

    def __init__(
        self, library: Library, frame: Frame, record: Record, row_counts: Sequence[int], last_position: int
    ) -> None:
        self._library, self._frame, self._record = library, frame, record
        self._row_counts = row_counts
        self._model = DraftModel(header=frame.header.data_ptr(), last_position=last_position, max_rows=row_counts[-1])
        self._recorded: dict[int, Recorded] = {}
        self._table: ctypes.Array[Recorded] | None = None
        self._kept: list[object] = []  # what the structs point to
        self._scratch_bytes = 0

    def grow(self, drafts: Sequence[Draft], width: int, branch: int) -> None:
        """Grow each request's tree, level by level; the fields of `Draft` say from what, and what came of it.

        The requests' pages must have room for `PAGE` positions behind those that are read.
        """
        require(0 < len(drafts) <= self._model.max_rows and width > 0 and branch > 0, f"{len(drafts)} requests")
        num_read = sum([draft.num_fed for draft in drafts])
        level = min(len(drafts) * width, self._model.max_rows)
        require(len(drafts) <= num_read <= self._model.max_rows, f"{num_read} tokens to read")
        self._make_ready(num_read, level)
        last = max([draft.length + draft.num_fed + draft.max_depth for draft in drafts])
        num_pages = len(drafts) * (last // PAGE + 1)
        self._frame.make_room(_ROOM + len(drafts) * _ROOM_EACH + num_pages, max(num_read, level), last)
        self._model.width, self._model.branch = width, branch
        places = (ctypes.c_void_p * len(drafts))(*map(ctypes.addressof, drafts))
        self._library.draft(ctypes.addressof(self._model), places, self._scratch_bytes, scratch)

    def _make_ready(self, num_read: int, level: int) -> None:
        """Record what may be run: a forward of `num_read` rows, then any of up to `level`."""
        wanted = [count for count in self._row_counts if count < level]
        wanted += [next(count for count in self._row_counts if count >= rows) for rows in (num_read, level)]
        new = [count for count in wanted if count not in self._recorded]
        for count in new:
            self._recorded[count] = self._take_up(count)
        if new or self._table is None:
            found = [self._recorded[count] for count in sorted(self._recorded)]
            self._table = (Recorded * len(found))(*found)
            self._model.recorded, self._model.num_recorded = ctypes.addressof(self._table), len(found)

    def _take_up(self, count: int) -> Recorded:
        tokens, positions, runner, logits = self._record(count)
        require(tokens.numel() == positions.numel() == len(logits) == count, f"a recording of {len(logits)} rows")
        require(logits.dtype in (torch.float32, torch.bfloat16) and logits.stride(1) == 1, f"logits {logits.dtype}")
        self._kept.append((tokens, positions, runner, logits))
        self._scratch_bytes = max(self._scratch_bytes, runner.scratch_bytes)
        self._model.vocab_size = logits.shape[1]
        inputs = (tokens.data_ptr(), positions.data_ptr())
        rows = (logits.data_ptr(), DTYPES[logits.dtype], logits.stride(0))
        return Recorded(count, ctypes.addressof(runner.ops), len(runner.ops), *inputs, *rows)
