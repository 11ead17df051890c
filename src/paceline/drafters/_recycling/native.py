"""The table where there are kernels: numpy's memory, read and written by csrc/recycle.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._recycling.table import CHANCES, FOLLOWED, THOUGHT, Table, token_before
from paceline.engine.request import DraftLimits
from paceline.engine.tree import DraftTree
from paceline.native.layout import PAGE, Grown, Recycled

if TYPE_CHECKING:
    from paceline.native.library import Library

_WIDEST = 64


class NativeTable(Table):
    """See `Table`."""

    def __init__(self, vocab_size: int, width: int, library: Library) -> None:
        super().__init__(vocab_size, width)
        self._recycling = library.recycling
        memory = (self._tokens, self._chances, self._followed, self._pairs)
        self._struct = Recycled(
            *(array.ctypes.data for array in memory), vocab_size, self._tokens.shape[1], self._num_slots
        )
        self._struct.thought[:], self._struct.followed_worth[:], self._struct.bounds[:] = THOUGHT, FOLLOWED, CHANCES
        self._grown = Grown()
        self._where, self._grown_at = ctypes.addressof(self._struct), ctypes.addressof(self._grown)

    def read(self, text: Sequence[int], start: int) -> None:
        """See `Table`."""
        new = _ints(text[start:])
        self._recycling.read(self._where, new, len(new), token_before(text, start))

    def learn(self, logits: NDArray[np.float32], rows: Sequence[int], pairs: Sequence[tuple[int, int]]) -> None:
        """See `Table`."""
        logits = np.ascontiguousarray(logits, np.float32)
        if logits.shape[1] != self._struct.vocab_size or not 0 <= min(rows) <= max(rows) < len(logits):
            raise ValueError(f"rows {rows} of logits {logits.shape} for a vocabulary of {self._struct.vocab_size}")
        before, last = zip(*pairs, strict=True)
        self._recycling.learn(self._where, logits.ctypes.data, _ints(rows), _ints(before), _ints(last), len(rows))

    def grow(self, root: tuple[int, int], min_chance: float, limits: DraftLimits, source: str) -> DraftTree:
        """See `Table`."""
        max_nodes = min(limits.max_nodes, PAGE)
        self._recycling.grow(self._where, *root, min_chance, max_nodes, limits.max_depth, self._grown_at)
        grown, count = self._grown, self._grown.num_nodes
        tokens, parents = tuple(grown.tokens[:count]), tuple(grown.parents[:count])
        return DraftTree(tokens, parents, tuple(grown.scores[:count]), (source,) * count, tuple(grown.buckets[:count]))


def _ints(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def make_table(vocab_size: int, width: int) -> Table:
    """An empty table, of the kind that is quickest here."""
    from paceline.native.library import library

    found = library()
    return Table(vocab_size, width) if found is None or width > _WIDEST else NativeTable(vocab_size, width, found)
