"""Pages of keys and values. A page is one tile of canonical attention: 64 positions of one sequence.

Knows nothing of models or trees. Page 0 belongs to nobody: padding rows write there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

PAGE_SIZE = 64


@dataclass(frozen=True)
class LayerShape:
    """What one attention layer stores per position."""

    num_kv_heads: int
    key_dim: int
    value_dim: int


class LayerCache:
    """Keys (pages, H_kv, 64, D) and values (pages, H_kv, 64, D_v) of one layer."""

    def __init__(self, shape: LayerShape, num_pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        heads = shape.num_kv_heads
        # Zeroed memory is finite, which masked entries must be, and untouched pages cost nothing.
        self.keys = torch.zeros(num_pages, heads, PAGE_SIZE, shape.key_dim, dtype=dtype, device=device)
        self.values = torch.zeros(num_pages, heads, PAGE_SIZE, shape.value_dim, dtype=dtype, device=device)
        self._flat_keys = self.keys.view(-1, shape.key_dim)
        self._flat_values = self.values.view(-1, shape.value_dim)

    def write(self, index: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store rows: `index` (R * H_kv,) from `head_index`, keys and values (R, H_kv, D)."""
        self._flat_keys.index_copy_(0, index, keys.reshape(-1, self.shape.key_dim))
        self._flat_values.index_copy_(0, index, values.reshape(-1, self.shape.value_dim))

    def read(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (len(index), D) float32 at `index`."""
        return self._flat_keys.index_select(0, index).float(), self._flat_values.index_select(0, index).float()

    def read_pages(self, pages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (len(pages), H_kv, 64, D) float32 of whole pages."""
        return self.keys.index_select(0, pages).float(), self.values.index_select(0, pages).float()

    def move(self, source: torch.Tensor, destination: torch.Tensor) -> None:
        """Copy rows from one place to another; the places may overlap."""
        self._flat_keys.index_copy_(0, destination, self._flat_keys.index_select(0, source))
        self._flat_values.index_copy_(0, destination, self._flat_values.index_select(0, source))


class CachedSequence:
    """The pages of one sequence and how many of its positions are committed."""

    def __init__(self, pages: NDArray[np.int64]) -> None:
        self.pages = pages
        self.length = 0

    def slots(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pool slots of positions."""
        return self.pages[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE


class PagePool:
    """All layers' pages and the list of free ones."""

    def __init__(self, shapes: list[LayerShape], num_pages: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layers = [LayerCache(shape, num_pages, dtype, device) for shape in shapes]
        self.num_pages = num_pages
        self.device = device
        self._free = list(range(num_pages - 1, 0, -1))

    @property
    def num_free_tokens(self) -> int:
        """Positions that can still be reserved."""
        return len(self._free) * PAGE_SIZE

    @property
    def num_bytes(self) -> int:
        """Size of the pool when every page has been touched."""
        return sum(t.numel() * t.element_size() for layer in self.layers for t in (layer.keys, layer.values))

    def reserve(self, num_tokens: int) -> CachedSequence | None:
        """A sequence with room for `num_tokens`, or None if too few pages are free."""
        count = -(-num_tokens // PAGE_SIZE)
        if count > len(self._free):
            return None
        return CachedSequence(np.array([self._free.pop() for _ in range(count)], np.int64))

    def release(self, sequence: CachedSequence) -> None:
        """Give a sequence's pages back."""
        self._free.extend(reversed(sequence.pages.tolist()))
        sequence.pages = sequence.pages[:0]

    def keep_path(self, sequence: CachedSequence, path: NDArray[np.int64]) -> None:
        """Commit the rows at scratch offsets `path` (ascending, from `length`), moving them into place."""
        wanted = np.arange(len(path), dtype=np.int64)
        moved = path != wanted
        if moved.any():
            source = sequence.slots(sequence.length + path[moved])
            destination = sequence.slots(sequence.length + wanted[moved])
            for layer in self.layers:
                heads = layer.shape.num_kv_heads
                layer.move(head_index(source, heads, self.device), head_index(destination, heads, self.device))
        sequence.length += len(path)


def head_index(slots: NDArray[np.int64], num_kv_heads: int, device: torch.device) -> torch.Tensor:
    """Rows (len(slots) * H_kv,) of a layer's flat view that hold `slots`, slot by slot, head by head."""
    page, place = np.divmod(slots, PAGE_SIZE)
    heads = np.arange(num_kv_heads, dtype=np.int64) * PAGE_SIZE
    index = (page * (num_kv_heads * PAGE_SIZE) + place)[:, None] + heads
    return torch.from_numpy(index.reshape(-1)).to(device)
