"""The rows of one forward, as the attention kernels read them (csrc/frame.h)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.native.layout import CHUNK, HEADER_INTS, MAX_LANES, PAGE, ROW_INTS, SEQUENCE_INTS, Draft
from paceline.native.library import Library

_NUM_ROWS, _NUM_SEQUENCES, _TABLE, _ROWS, _SLOTS, _PARTIALS, _CHUNKS = range(HEADER_INTS)

Ints = NDArray[np.int64]


class FrameSequence(NamedTuple):
    """Rows of one sequence. A slot is page * 64 + place in every layer's pool."""

    pages: Ints  # (at least committed / 64, rounded up) the sequence's page table
    committed: int  # positions whose keys are in `pages`; rows of a prompt's chunk count among them
    positions: Sequence[int]  # of each row: the last that it sees
    slots: Sequence[int]  # where each row's own key and value are stored
    drafts: Sequence[int] = ()  # slots of the keys that are not committed, 64 at most
    paths: Sequence[Sequence[int]] = ()  # each row's drafts from position `committed` up to its own; () if it has none
    owns: Sequence[int] = ()  # where rows stand that see what follows them; () if none does


class Frame:
    """What the kernels know of a forward's rows, and the buffer between `ATTEND` and `COMBINE`.

    The header's address is the frame's own for ever, and it is all that an operation holds: operations are built
    once and read whatever `set` was given last. The tables and the buffer behind the header grow when needed and
    move then. One forward at a time.
    """

    def __init__(self, library: Library, num_pages: int) -> None:
        self._library = library
        self.num_pages = num_pages  # of every pool that it is used with: no page or slot beyond is let in
        self.num_rows = 0
        self.header = torch.zeros(HEADER_INTS, dtype=torch.int64)
        self._header = self.header.numpy()  # the same memory
        self._table = np.zeros(0, np.int64)
        self._partials = torch.empty(0)
        self._num_chunks = 0
        self._floats = 0  # of a row's partial results in one chunk

    def set(self, sequences: Sequence[FrameSequence]) -> None:
        """Describe the next forward: rows are numbered through all sequences in order.

        Raises:
            ValueError: a row, page or slot that would let a kernel read or write where it must not.
        """
        self._library.expect()
        table = self._fill(sequences)
        self._make_table(len(table))
        self._table[: len(table)] = table
        last = max([max(item.positions) for item in sequences if item.positions], default=0)
        self.num_rows = sum([len(item.positions) for item in sequences])
        rows = len(sequences) * SEQUENCE_INTS
        slots = rows + self.num_rows * ROW_INTS
        values = self._header
        values[_NUM_ROWS], values[_NUM_SEQUENCES] = self.num_rows, len(sequences)
        values[_ROWS], values[_SLOTS] = rows, slots
        values[_CHUNKS] = self._num_chunks = last // CHUNK + 1
        self._grow()

    def set_trees(self, trees: Sequence[Draft]) -> Ints:
        """Describe the next forward by trees of fed nodes, the last `num_rows` of each: (R,) the rows' positions.

        Row i of a tree is stored at position `length + i` of its sequence, whatever its depth. Natively.

        Raises:
            ValueError: as in `set`.
        """
        self._library.expect()
        num_rows, last = sum([tree.num_rows for tree in trees]), max([tree.length + tree.num_fed for tree in trees])
        size = len(trees) * (SEQUENCE_INTS + PAGE + last // PAGE + 1) + num_rows * (ROW_INTS + 1 + PAGE)
        self.make_room(size, num_rows, last)
        positions = np.empty(num_rows, np.int64)
        places = (ctypes.c_void_p * len(trees))(*map(ctypes.addressof, trees))
        if not self._library.describe(self.header.data_ptr(), places, self.num_pages, positions.ctypes.data):
            raise ValueError(f"a page, slot or parent that is none, of a pool of {self.num_pages} pages")
        return positions

    def make_room(self, table_size: int, num_rows: int, last_position: int) -> None:
        """Make room for rows that native code describes by itself, up to that position."""
        self._make_table(table_size)
        self.num_rows, self._num_chunks = num_rows, last_position // CHUNK + 1
        self._grow()

    def require(self, num_heads: int, value_dim: int) -> None:
        """Make room for the partial results of a layer of this shape."""
        self._floats = max(self._floats, num_heads * (-(-value_dim // MAX_LANES) * MAX_LANES + 2))
        self._grow()

    def _make_table(self, size: int) -> None:
        if size > len(self._table):
            self._table = np.empty(2 * size, np.int64)
            self._header[_TABLE] = self._table.ctypes.data

    def _grow(self) -> None:
        needed = self.num_rows * self._num_chunks * self._floats
        if needed > len(self._partials):
            self._partials = torch.empty(needed * 5 // 4)
            self._header[_PARTIALS] = self._partials.data_ptr()

    def _fill(self, sequences: Sequence[FrameSequence]) -> list[int]:
        """The table: sequences, rows, slots, then page tables, drafts and paths. Python's own numbers: they are few."""
        heads: list[int] = []
        rows: list[int] = []
        slots: list[int] = []
        rest: list[int] = []
        num_rows = sum([len(item.positions) for item in sequences])
        start = len(sequences) * SEQUENCE_INTS + num_rows * (ROW_INTS + 1)
        first = 0
        for item in sequences:
            place = start + len(rest)
            rest += self._pages(item)
            self._check_slots(item.drafts)
            heads += (first, first + len(item.positions), item.committed, place, start + len(rest), len(item.drafts))
            rest += item.drafts
            paths = _paths(item)
            for position, path, own in zip(item.positions, paths, _stand(item), strict=True):
                rows += (position, start + len(rest), own)
                rest += path
            self._check_slots(item.slots)
            slots += item.slots
            first += len(item.positions)
        return [*heads, *rows, *slots, *rest]

    def _pages(self, item: FrameSequence) -> list[int]:
        pages: list[int] = item.pages[: -(-item.committed // PAGE)].tolist()
        if len(pages) * PAGE < item.committed:
            raise ValueError(f"{len(item.pages)} pages cannot hold {item.committed} positions")
        if pages and not 0 <= min(pages) <= max(pages) < self.num_pages:
            raise ValueError(f"a page outside the pool of {self.num_pages}")
        return pages

    def _check_slots(self, slots: Sequence[int]) -> None:
        if slots and not 0 <= min(slots) <= max(slots) < self.num_pages * PAGE:
            raise ValueError(f"a slot outside the pool of {self.num_pages} pages")


def _stand(item: FrameSequence) -> Sequence[int]:
    """Where the rows stand, checked: none behind what it sees, which would be nothing."""
    owns = item.owns or item.positions
    if any(not 0 <= own <= seen for own, seen in zip(owns, item.positions, strict=True)):
        raise ValueError("a row that stands behind the last position that it sees")
    return owns


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
