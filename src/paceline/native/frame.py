"""The rows of one forward, as the attention kernels read them (csrc/frame.h)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PAGE = 64  # positions of a page, as in csrc/paceline.h; and drafts that a sequence may have at most
CHUNK = 512  # positions that attention adds up without a break
_MAX_LANES = 16
_SEQUENCE_INTS, _ROW_INTS = 6, 2
_NUM_ROWS, _NUM_SEQUENCES, _TABLE, _ROWS, _SLOTS, _PARTIALS, _CHUNKS, _HEADER_INTS = range(8)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FrameSequence:
    """Rows of one sequence. A slot is page * 64 + place in every layer's pool."""

    pages: Ints  # (at least committed / 64, rounded up) the sequence's page table
    committed: int  # positions whose keys are in `pages`; rows of a prompt's chunk count among them
    positions: Sequence[int]  # of each row
    slots: Sequence[int]  # where each row's own key and value are stored
    drafts: Sequence[int] = ()  # slots of the keys that are not committed, 64 at most
    paths: Sequence[Sequence[int]] = ()  # each row's drafts from position `committed` up to its own; () if it has none


class Frame:
    """What the kernels know of a forward's rows, and the buffer between `ATTEND` and `COMBINE`.

    The header's address is the frame's own for ever, and it is all that an operation holds: operations are built
    once and read whatever `set` was given last. The tables and the buffer behind the header grow when needed and
    move then. One forward at a time.
    """

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages  # of every pool that it is used with: no page or slot beyond is let in
        self.num_rows = 0
        self.header = torch.zeros(_HEADER_INTS, dtype=torch.int64)
        self._header = self.header.numpy()  # the same memory
        self._table = np.zeros(0, np.int64)
        self._partials = torch.empty(0)
        self._floats = 0  # of a row's partial results in one chunk

    def set(self, sequences: Sequence[FrameSequence]) -> None:
        """Describe the next forward: rows are numbered through all sequences in order.

        Raises:
            ValueError: a row, page or slot that would let a kernel read or write where it must not.
        """
        table = self._fill(sequences)
        if len(table) > len(self._table):
            self._table = np.empty(2 * len(table), np.int64)
        self._table[: len(table)] = table
        last = max((max(item.positions) for item in sequences if len(item.positions)), default=0)
        self.num_rows = sum(len(item.positions) for item in sequences)
        values = self._header
        values[_NUM_ROWS] = self.num_rows
        values[_NUM_SEQUENCES] = len(sequences)
        values[_TABLE] = self._table.ctypes.data
        values[_ROWS] = len(sequences) * _SEQUENCE_INTS
        values[_SLOTS] = values[_ROWS] + self.num_rows * _ROW_INTS
        values[_CHUNKS] = last // CHUNK + 1
        self._grow()

    def require(self, num_heads: int, value_dim: int) -> None:
        """Make room for the partial results of a layer of this shape."""
        self._floats = max(self._floats, num_heads * (-(-value_dim // _MAX_LANES) * _MAX_LANES + 2))
        self._grow()

    def _grow(self) -> None:
        needed = self.num_rows * int(self._header[_CHUNKS]) * self._floats
        if needed > len(self._partials):
            self._partials = torch.empty(needed * 5 // 4)
        self._header[_PARTIALS] = self._partials.data_ptr()

    def _fill(self, sequences: Sequence[FrameSequence]) -> Ints:
        """The table: sequences, rows, slots, then page tables, drafts and paths."""
        heads: list[int] = []
        rows: list[int] = []
        slots: list[int] = []
        rest: list[Ints] = []
        num_rows = sum(len(item.positions) for item in sequences)
        place = len(sequences) * _SEQUENCE_INTS + num_rows * (_ROW_INTS + 1)
        first = 0
        for item in sequences:
            pages = self._pages(item)
            drafts = self._slots(item.drafts)
            path = place + len(pages) + len(drafts)
            heads += (first, first + len(item.positions), item.committed, place, place + len(pages), len(drafts))
            flat: list[int] = []
            for position, own in zip(item.positions, _paths(item), strict=True):
                rows += (position, path + len(flat))
                flat += own
            slots += self._slots(item.slots).tolist()
            rest += (pages, drafts, np.array(flat, np.int64))
            place = path + len(flat)
            first += len(item.positions)
        return np.concatenate([np.array([*heads, *rows, *slots], np.int64), *rest])

    def _pages(self, item: FrameSequence) -> Ints:
        pages = item.pages[: -(-item.committed // PAGE)]
        if len(pages) * PAGE < item.committed:
            raise ValueError(f"{len(item.pages)} pages cannot hold {item.committed} positions")
        if len(pages) and not 0 <= pages.min() <= pages.max() < self.num_pages:
            raise ValueError(f"a page outside the pool of {self.num_pages}")
        return pages

    def _slots(self, slots: Sequence[int]) -> Ints:
        found = np.asarray(slots, np.int64)
        if len(found) and not 0 <= found.min() <= found.max() < self.num_pages * PAGE:
            raise ValueError(f"a slot outside the pool of {self.num_pages} pages")
        return found


def _paths(item: FrameSequence) -> Sequence[Sequence[int]]:
    """The rows' paths, checked."""
    count = len(item.drafts)
    if count > PAGE or len(item.slots) != len(item.positions) or item.committed < 0:
        raise ValueError(f"{count} drafts, {len(item.slots)} slots for {len(item.positions)} rows")
    paths = item.paths or [()] * len(item.positions)
    for position, path in zip(item.positions, paths, strict=True):
        if position < 0 or len(path) != max(position + 1 - item.committed, 0):
            raise ValueError(f"a path of {len(path)} for position {position} with {item.committed} committed")
        if path and not 0 <= min(path) <= max(path) < count:
            raise ValueError(f"a path outside of {count} drafts")
    return paths
