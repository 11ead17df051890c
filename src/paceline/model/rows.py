"""One forward's rows as index tensors: what is fed, where it is stored, what each row may see.

A row is one token at one position of one sequence. It sees its own path: the committed positions and then its
ancestors in the tree. `Rows` says this in the two parts that batch-invariant attention works with (attention.py):
the tail, gathered per group of rows, and the shared tiles, read per block of rows. Knows nothing of models.

N groups of g rows share a tail; blocks of up to 8 rows (64 in prefill) share tiles. All shapes below follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.model.pool import CachedSequence, head_index
from paceline.model.prefix import PAGE_SIZE
from paceline.native.states import StateRows

TAIL = 2 * PAGE_SIZE
BLOCK_ROWS = 8
Ints = NDArray[np.int64]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Shared:
    """Tiles read for blocks of rows: pages (blocks * tiles,), bias broadcastable to (blocks, tiles, rows, 64).

    `distances` (blocks, tiles, rows, 64) int64: how far before its row each position is.
    """

    num_tiles: int
    pages: torch.Tensor
    bias: torch.Tensor
    distances: torch.Tensor


@dataclass
class Rows:
    """The rows of one forward. Integer arrays int64; R = N * g rows.

    Every field is set by the builders below; what depends on a layer's window or heads is made on first use.
    """

    tokens: Ints  # (R,)
    positions: Ints  # (R,)
    slots: Ints  # (R,) where each row's key and value are stored
    rows_per_group: int  # g
    tail_slots: Ints  # (N, 128) the path's slots from position 64 * (tile - 1) on; anything finite where none is
    tiles: Ints  # (N,) the tile of each group's rows: position // 64
    blocks: Ints  # (blocks, rows) rows that share tiles; repeats of a row fill the last block of a run
    block_pages: list[Ints]  # each block's page table
    block_tiles: Ints  # (blocks,) the tile of each block's rows
    places: Ints  # (R,) where each row stands in blocks, flattened
    states: list[
        StateRows
    ]  # the same rows by sequence, as recurrent layers see them; none where there are no such layers
    device: torch.device
    pins: Ints | None = None  # (R,) the context that each is rotated for, by number; None: the first
    offsets: Ints | None = None  # (R,) what its rotary position is beyond its position; None: nothing
    sources: Rows | None = None  # the same rows as they look at their sources, of an encoder-decoder
    _cache: dict[tuple[str, int], object] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tokens)

    def write_index(self, num_kv_heads: int) -> torch.Tensor:
        """(R * H_kv,) flat rows of a layer's cache."""
        return self._once("write", num_kv_heads, lambda: head_index(self.slots, num_kv_heads, self.device))

    def tail_index(self, num_kv_heads: int) -> torch.Tensor:
        """(N * H_kv * 128,) flat rows of a layer's cache, group by group, head by head."""

        def make() -> torch.Tensor:
            page, place = np.divmod(self.tail_slots, PAGE_SIZE)
            heads = np.arange(num_kv_heads, dtype=np.int64)[:, None] * PAGE_SIZE
            index = (page * (num_kv_heads * PAGE_SIZE) + place)[:, None, :] + heads
            return torch.from_numpy(index.reshape(-1)).to(self.device)

        return self._once("tail", num_kv_heads, make)

    def tail_bias(self, window: int) -> torch.Tensor:
        """(N, 1, g, 1, 128) float32: 0 where a row sees the position, -inf elsewhere. `window` 0 is none."""

        def make() -> torch.Tensor:
            visible = _sees(self.positions.reshape(len(self.tiles), -1, 1), self._tail_keys(), window)
            return self._bias(visible[:, None, :, None, :])

        return self._once("tail_bias", window, make)

    def tail_distances(self) -> torch.Tensor:
        """(N, 1, g, 1, 128) int64: how far before its row each position of the tail is."""

        def make() -> torch.Tensor:
            ahead = self.positions.reshape(len(self.tiles), -1, 1) - self._tail_keys()
            return torch.from_numpy(ahead[:, None, :, None, :]).to(self.device)

        return self._once("tail_distances", 0, make)

    def _tail_keys(self) -> Ints:
        """(N, 1, 128) positions of the tails."""
        return ((self.tiles[:, None] - 1) * PAGE_SIZE + np.arange(TAIL))[:, None, :]

    def shared(self, window: int) -> Shared | None:
        """The tiles before the tail that a layer with this window reads; None if no row has any."""
        return self._once("shared", window, lambda: self._make_shared(window))

    def _make_shared(self, window: int) -> Shared | None:
        # The first tile and the count depend on a row's own tile alone, so that every forward sums alike.
        last = np.maximum(self.block_tiles - 1, 0)
        lowest = first_seen(self.block_tiles * PAGE_SIZE, window)  # that the first row of a tile sees
        first = np.minimum(lowest // PAGE_SIZE, last)
        count = last - first
        num_tiles = int(count.max())
        if num_tiles == 0:
            return None
        tile = first[:, None] + np.arange(num_tiles)
        used = np.arange(num_tiles) < count[:, None]
        # Where there is no tile, page 0 is read: an own page may hold what an earlier request left there.
        tables = zip(self.block_pages, tile, used, strict=True)
        pages = np.stack([np.where(u, table[np.where(u, t, 0)], 0) for table, t, u in tables])
        keys = tile[:, :, None, None] * PAGE_SIZE + np.arange(PAGE_SIZE)
        visible = used[:, :, None, None]
        rows = self.positions[self.blocks][:, None, :, None]
        if window:
            visible = visible & _sees(rows, keys, window)
        distances = torch.from_numpy(rows - keys).to(self.device)
        return Shared(num_tiles, torch.from_numpy(pages.reshape(-1)).to(self.device), self._bias(visible), distances)

    def block_index(self) -> torch.Tensor:
        """(blocks * rows,) the rows of each block."""
        return self._once("blocks", 0, lambda: torch.from_numpy(self.blocks.reshape(-1)).to(self.device))

    def place_index(self) -> torch.Tensor:
        """(R,) where each row's result stands among the blocks."""
        return self._once("places", 0, lambda: torch.from_numpy(self.places).to(self.device))

    def _bias(self, visible: NDArray[np.bool_]) -> torch.Tensor:
        return torch.from_numpy(np.where(visible, np.float32(0), np.float32(-np.inf))).to(self.device)

    def _once(self, name: str, key: int, make: Callable[[], Made]) -> Made:
        if (name, key) not in self._cache:
            self._cache[name, key] = make()
        return cast(Made, self._cache[name, key])


def first_seen(rows: Ints, window: int) -> Ints:
    """The first positions that rows see. A negative window is a chunk's length: its row sees it from the beginning."""
    if window < 0:
        return rows - rows % -window
    return np.maximum(rows - window + 1, 0) if window else np.zeros_like(rows)


def _sees(rows: Ints, keys: Ints, window: int) -> NDArray[np.bool_]:
    return (keys <= rows) & (keys >= first_seen(rows, window))


@dataclass(frozen=True)
class TreeWork:
    """Part of a forward: rows `first` and later of a tree that hangs on a sequence's committed positions."""

    sequence: CachedSequence
    tokens: Sequence[int]  # row 0 of a tree is usually the pending token
    parents: Sequence[int]  # index of each row's parent, -1 = the last committed position
    first: int = 0

    def states(self, first_row: int) -> list[StateRows]:
        """Its rows as recurrent layers see them, from row `first_row` of a forward on; once for each forward."""
        return self.sequence.state_rows(first_row, self.parents, self.first)


def tree_rows(work: Sequence[TreeWork], num_rows: int, device: torch.device) -> Rows:
    """Rows of several trees, padded to `num_rows`; each row is its own group (g = 1).

    Row i of a tree is stored at position `length + i` of its sequence, whatever its depth.
    """
    tokens: list[int] = []
    positions: list[int] = []
    pins: list[int] = []
    offsets: list[int] = []
    slots: list[Ints] = []
    tails: list[Ints] = []
    states: list[StateRows] = []
    blocks = Blocks()
    for number, item in enumerate(work):
        states += item.states(len(tokens))
        paths = paths_of(item.parents)
        stored = item.sequence.slots(item.sequence.length + np.arange(len(item.tokens), dtype=np.int64))
        for i in range(item.first, len(item.tokens)):
            position = item.sequence.length + len(paths[i]) - 1
            blocks.add(len(tokens), number, position // PAGE_SIZE, item.sequence.pages)
            tokens.append(item.tokens[i])
            positions.append(position)
            pins.append(item.sequence.pin)
            offsets.append(item.sequence.offset)
            tails.append(_tail(item.sequence, stored[paths[i]], position))
        slots.append(stored[item.first :])
    padding = num_rows - len(tokens)
    for pad in range(padding):  # padding rows live on page 0 and see themselves alone
        blocks.add(len(tokens) + pad, len(work), 0, np.zeros(1, np.int64))
        tails.append(np.full(TAIL, pad % PAGE_SIZE, np.int64))
    own = np.concatenate([*slots, np.arange(padding, dtype=np.int64) % PAGE_SIZE])
    tail_slots = np.stack(tails)
    rows = assemble(tokens + [0] * padding, positions + [0] * padding, own, 1, tail_slots, blocks, states, device)
    rows.pins, rows.offsets = (np.array(each + [0] * padding, np.int64) for each in (pins, offsets))
    return rows


def chunk_rows(sequence: CachedSequence, tokens: Sequence[int], device: torch.device) -> Rows:
    """The 64 rows of one page of a prompt, padded at the end: one group and one block that share everything."""
    start = sequence.length
    positions = np.arange(start, start + PAGE_SIZE, dtype=np.int64)
    slots = sequence.slots(positions)
    tail = np.arange(start - PAGE_SIZE, start + PAGE_SIZE, dtype=np.int64)
    tail_slots = np.where(tail >= 0, sequence.slots(np.maximum(tail, 0)), slots[0])
    blocks = Blocks(PAGE_SIZE)
    for row in range(PAGE_SIZE):
        blocks.add(row, 0, start // PAGE_SIZE, sequence.pages)
    padded = [*tokens, *[0] * (PAGE_SIZE - len(tokens))]
    fed = np.minimum(positions, start + len(tokens) - 1)  # padding may stand beyond the model's context
    states = sequence.state_rows(0, range(-1, len(tokens) - 1), 0, is_kept=True)
    rows = assemble(padded, fed.tolist(), slots, PAGE_SIZE, tail_slots[None], blocks, states, device)
    rows.pins, rows.offsets = (np.full(PAGE_SIZE, n, np.int64) for n in (sequence.pin, sequence.offset))
    return rows


def paths_of(parents: Sequence[int]) -> list[list[int]]:
    """Each row's ancestors from the root down, itself last."""
    paths: list[list[int]] = []
    for i, parent in enumerate(parents):
        paths.append([*paths[parent], i] if parent >= 0 else [i])
    return paths


def _tail(sequence: CachedSequence, path: Ints, position: int) -> Ints:
    """(128,) slots of the positions from 64 * (tile - 1) on, in path order; the row's own slot where none is."""
    first = (position // PAGE_SIZE - 1) * PAGE_SIZE
    tail = np.full(TAIL, path[-1], np.int64)
    committed = np.arange(max(first, 0), sequence.length, dtype=np.int64)
    tail[committed - first] = sequence.slots(committed)
    drafted = sequence.length - first
    tail[drafted : drafted + len(path)] = path
    return tail


class Blocks:
    """Gathers rows of one sequence and one tile into blocks of fixed size."""

    def __init__(self, size: int = BLOCK_ROWS) -> None:
        self.size = size
        self.rows: list[list[int]] = []
        self.tiles: list[int] = []
        self.pages: list[Ints] = []
        self.places: list[int] = []
        self._open: dict[tuple[int, int], int] = {}  # (item, tile) -> block with room

    def add(self, row: int, item: int, tile: int, pages: Ints) -> None:
        """Put a row of a sequence, by its number among the work, into a block of its tile."""
        key = (item, tile)  # not by a page: sequences that begin alike share them
        block = self._open.get(key)
        if block is None or len(self.rows[block]) == self.size:
            block = self._open[key] = len(self.rows)
            self.rows.append([])
            self.tiles.append(tile)
            self.pages.append(pages)
        self.places.append(block * self.size + len(self.rows[block]))
        self.rows[block].append(row)

    def table(self) -> Ints:
        """(blocks, size) rows; a block that is not full repeats its first row."""
        return np.array([rows + [rows[0]] * (self.size - len(rows)) for rows in self.rows], np.int64)


def assemble(
    tokens: list[int],
    positions: list[int],
    slots: Ints,
    rows_per_group: int,
    tail_slots: Ints,
    blocks: Blocks,
    states: list[StateRows],
    device: torch.device,
) -> Rows:
    """`Rows` from lists: groups of `rows_per_group`, tails and blocks as in its fields."""
    where = np.array(positions, np.int64)
    return Rows(
        tokens=np.array(tokens, np.int64),
        positions=where,
        slots=slots,
        rows_per_group=rows_per_group,
        tail_slots=tail_slots,
        tiles=where[::rows_per_group] // PAGE_SIZE,
        blocks=blocks.table(),
        block_pages=blocks.pages,
        block_tiles=np.array(blocks.tiles, np.int64),
        places=np.array(blocks.places, np.int64),
        states=states,
        device=device,
    )
