"""Pages of keys and values. A page is one tile of batch-invariant attention: 64 positions of one sequence.

Knows nothing of models or trees. Page 0 belongs to nobody: padding rows write there.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.model.prefix import PAGE_SIZE, PrefixCache
from paceline.model.states import SequenceState, StatePool
from paceline.native.states import StateRows

if TYPE_CHECKING:
    from paceline.model.pictures.prompt import SeenPrompt

_PLACES = range(PAGE_SIZE)
_ALIGNMENT = 64  # bytes, as PyTorch aligns


@dataclass(frozen=True)
class LayerShape:
    """What one attention layer stores per position."""

    num_kv_heads: int
    key_dim: int
    value_dim: int


class LayerCache:
    """Keys (pages, H_kv, 64, D) and values (pages, H_kv, 64, D_v) of one layer."""

    def __init__(self, shape: LayerShape, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.shape = shape
        self.keys, self.values = keys, values
        self._flat_keys = self.keys.view(-1, shape.key_dim)
        self._flat_values = self.values.view(-1, shape.value_dim)

    def write(self, index: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Store rows: `index` (R * H_kv,) from `head_index`, keys and values (R, H_kv, D)."""
        flat_keys, flat_values = self._flat_keys, self._flat_values
        flat_keys.index_copy_(0, index, keys.reshape(-1, self.shape.key_dim).to(flat_keys.dtype))
        flat_values.index_copy_(0, index, values.reshape(-1, self.shape.value_dim).to(flat_values.dtype))

    def read(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (len(index), D) float32 at `index`."""
        return self._flat_keys.index_select(0, index).float(), self._flat_values.index_select(0, index).float()

    def read_pages(self, pages: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (len(pages), H_kv, 64, D) float32 of whole pages."""
        return self.keys.index_select(0, pages).float(), self.values.index_select(0, pages).float()


class _Stack:
    """The memory of all layers of one shape, so that rows of all of them are moved at once."""

    def __init__(self, shape: LayerShape, num_layers: int, num_pages: int, like: torch.Tensor) -> None:
        self.shape = shape
        size = (num_layers, num_pages, shape.num_kv_heads, PAGE_SIZE)
        self.keys = _zeros((*size, shape.key_dim), like)
        self.values = _zeros((*size, shape.value_dim), like)
        self._flat = [self.keys.view(num_layers, -1, shape.key_dim), self.values.view(num_layers, -1, shape.value_dim)]

    def move(self, source: NDArray[np.int64], destination: NDArray[np.int64]) -> None:
        """Copy rows from slots to other slots in every layer; the places may overlap."""
        places = [head_index(slots, self.shape.num_kv_heads, self.keys.device) for slots in (source, destination)]
        for flat in self._flat:
            flat.index_copy_(1, places[1], flat.index_select(1, places[0]))


def _zeros(size: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros: finite, which masked entries must be. On a CPU, pages of memory that are never touched cost nothing."""
    if like.device.type != "cpu":
        return like.new_zeros(size)
    num_bytes = math.prod(size) * like.element_size()
    memory = np.zeros(num_bytes + _ALIGNMENT, np.uint8)  # PyTorch would write the zeros
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + num_bytes]).view(like.dtype).view(size)


class CachedSequence:
    """The pages of one sequence, of which it may share full ones at its front, and how many positions are committed."""

    def __init__(self, pages: NDArray[np.int64], length: int = 0, state: SequenceState | None = None) -> None:
        self.pages = pages
        self.length = length
        self.state = state  # of recurrent layers
        self.was_asked = False  # a head that reads it, at least once
        self.kept_for = 0  # length from which on what heads make of its rows is kept no more
        self.pin = 0  # the context that its rows are rotated for, by number
        self.pictures: SeenPrompt | None = None  # in its prompt
        self.source: CachedSequence | None = None  # what its rows look at besides: of an encoder-decoder

    def state_rows(self, first_row: int, parents: Sequence[int], first: int, is_kept: bool = False) -> list[StateRows]:
        """What recurrent layers are told of the rows of a tree, once for each forward; nothing if there are none."""
        return [] if self.state is None else [self.state.feed(first_row, parents, first, is_kept)]

    @property
    def has_guests(self) -> bool:
        """True if the next forward of its rows keeps what heads make of them."""
        return self.length < self.kept_for

    @property
    def offset(self) -> int:
        """How far the rotary position of a row behind its prompt is from its position: a picture may take up less."""
        return 0 if self.pictures is None else self.pictures.offset

    def advance(self, count: int) -> None:
        """Commit the first rows of what was fed last, which stand where they belong."""
        self.length += count
        if self.state is not None:
            self.state.accept(range(count))

    def slots(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pool slots of positions."""
        return self.pages[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE

    def slots_from(self, start: int, count: int) -> list[int]:
        """Pool slots of `count` positions from `start` on."""
        first, last = start // PAGE_SIZE, (start + count - 1) // PAGE_SIZE
        places = [page * PAGE_SIZE + place for page in self.pages[first : last + 1].tolist() for place in _PLACES]
        return places[start - first * PAGE_SIZE :][:count]


class PagePool:
    """All layers' pages and who uses them. Those in the prefix cache are kept after use until there are no others."""

    def __init__(
        self,
        shapes: list[LayerShape],
        num_pages: int,
        dtype: torch.dtype,
        device: torch.device,
        states: StatePool | None = None,
    ) -> None:
        self.num_pages = num_pages
        self.dtype, self.device = dtype, device
        self._stacks: list[_Stack] = []
        self.layers = self._stacked(shapes)
        self.guests: list[LayerCache] = []  # of heads: what they keep for each position of the model's text
        self.prefixes = PrefixCache()
        self.states = states  # of a model with recurrent layers
        self._free = list(range(num_pages - 1, 0, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # in the prefix cache and not in use, longest unused first
        self._users: Counter[int] = Counter()  # sequences by page

    def _stacked(self, shapes: Sequence[LayerShape]) -> list[LayerCache]:
        """Memory for layers of these shapes, whose rows are moved with all others."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        stacks = {shape: _Stack(shape, count, self.num_pages, like) for shape, count in Counter(shapes).items()}
        self._stacks += stacks.values()
        memory = {shape: zip(stack.keys, stack.values, strict=True) for shape, stack in stacks.items()}
        return [LayerCache(shape, *next(memory[shape])) for shape in shapes]

    def add_guests(self, shapes: Sequence[LayerShape]) -> list[LayerCache]:
        """Layers of a head, in the same pages and slots. What prompts have left in the prefix cache is forgotten."""
        added = self._stacked(shapes)
        self.guests += added
        self.forget_prefixes()
        return added

    def remove_guests(self, layers: Sequence[LayerCache]) -> None:
        """Give the memory of a head's layers back: all that were added together."""
        gone = {layer.keys.data_ptr() for layer in layers}  # a stack begins with its first layer
        self.guests = [layer for layer in self.guests if not any(layer is one for one in layers)]
        self._stacks = [stack for stack in self._stacks if stack.keys.data_ptr() not in gone]
        self.forget_prefixes()

    def forget_prefixes(self) -> None:
        """Keep no page any more that no sequence uses, and find none of those in use again."""
        self.prefixes.forget_all()
        self._free += self._kept
        self._kept.clear()

    @property
    def num_free_tokens(self) -> int:
        """Positions that can still be reserved."""
        return (len(self._free) + len(self._kept)) * PAGE_SIZE

    @property
    def num_bytes(self) -> int:
        """Size of the pool when every page has been touched."""
        layers = [*self.layers, *self.guests]
        pages = sum(t.numel() * t.element_size() for layer in layers for t in (layer.keys, layer.values))
        return pages + (0 if self.states is None else self.states.num_bytes)

    @property
    def page_size(self) -> int:
        """Positions of a page."""
        return PAGE_SIZE

    @property
    def usage(self) -> float:
        """The share of pages that sequences hold, from 0 to 1."""
        return len(self._users) / (self.num_pages - 1)

    def reserve(self, num_tokens: int, shared: Sequence[int] = (), spare: int = 0) -> CachedSequence | None:
        """A sequence with room for `num_tokens` that begins with the `shared` pages.

        None if too few are free, with `spare` tokens to be left.
        """
        count = _pages(num_tokens) - len(shared)
        available = len(self._free) + len(self._kept) - sum(page in self._kept for page in shared)
        if count + _pages(spare) > available or (self.states is not None and self.states.num_free == 0):
            return None
        for page in shared:
            self._kept.pop(page, None)
        pages = [*shared, *(self._take() for _ in range(count))]
        self._users.update(pages)
        state = None if self.states is None else self.states.take()
        return CachedSequence(np.array(pages, np.int64), len(shared) * PAGE_SIZE, state)

    def extend(self, sequence: CachedSequence, num_tokens: int) -> None:
        """Make room for `num_tokens` in a sequence, or for as many as there are free pages."""
        missing = _pages(num_tokens) - len(sequence.pages)
        added = [self._take() for _ in range(min(missing, len(self._free) + len(self._kept)))]
        if added:
            self._users.update(added)
            sequence.pages = np.append(sequence.pages, np.array(added, np.int64))

    def share(self, sequence: CachedSequence, index: int, page: int) -> None:
        """Have a sequence use `page`, which holds the same, in place of its own one."""
        own = int(sequence.pages[index])
        if own != page:
            self._kept.pop(page, None)
            self._users[page] += 1
            sequence.pages[index] = page
            self._give_back(own)

    def copy_begun(self, sequence: CachedSequence, page: int, count: int) -> None:
        """Commit what the first positions of `page` hold to a sequence that ends where a page does."""
        if page in self._kept:
            self._kept.move_to_end(page)
        places = np.arange(count, dtype=np.int64)
        for stack in self._stacks:
            stack.move(page * PAGE_SIZE + places, sequence.slots(sequence.length + places))
        sequence.length += count

    def trim(self, sequence: CachedSequence, num_tokens: int) -> None:
        """Give back the pages of a sequence beyond `num_tokens`; those at its end are forgotten first."""
        count = _pages(num_tokens)
        if count < len(sequence.pages):
            for page in reversed(sequence.pages[count:].tolist()):
                self._give_back(page)
            sequence.pages = sequence.pages[:count].copy()

    def rewind(self, sequence: CachedSequence, length: int) -> None:
        """Forget what a sequence that shares no page has from position `length` on; all, where states have gone on."""
        if self.states is not None:
            self.release(sequence)
            fresh = self.reserve(0)
            assert fresh is not None, "a state has just been given back"
            sequence.pages, sequence.state, length = fresh.pages, fresh.state, 0
        sequence.length = length

    def release(self, sequence: CachedSequence) -> None:
        """Give all of a sequence's pages back, and its state, and the pages of its source."""
        self.trim(sequence, 0)
        if sequence.source is not None:
            self.trim(sequence.source, 0)
        if self.states is not None and sequence.state is not None:
            self.states.give_back(sequence.state)
            sequence.state = None

    def resumable(self, known: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The longest beginning of known pages, with serial numbers, behind which a sequence can go on.

        All of them; with recurrent layers those up to the last at whose end a state is kept.
        """
        if self.states is None:
            return known
        return known[: max((i for i, (_, serial) in enumerate(known, 1) if serial in self.states), default=0)]

    def _give_back(self, page: int) -> None:
        self._users[page] -= 1
        if self._users[page] == 0:
            del self._users[page]
            if page in self.prefixes:
                self._kept[page] = None
            else:
                self._free.append(page)

    def _take(self) -> int:
        """A page that nobody uses; one that is kept only if there is no other."""
        if self._free:
            return self._free.pop()
        page, _ = self._kept.popitem(last=False)
        self.prefixes.forget(page)
        return page

    def keep_path(self, sequence: CachedSequence, path: NDArray[np.int64]) -> None:
        """Commit the rows at scratch offsets `path` (ascending, from `length`), moving them into place."""
        wanted = np.arange(len(path), dtype=np.int64)
        moved = path != wanted
        if moved.any():
            source = sequence.slots(sequence.length + path[moved])
            destination = sequence.slots(sequence.length + wanted[moved])
            for stack in self._stacks:
                stack.move(source, destination)
        sequence.length += len(path)
        if sequence.state is not None:
            sequence.state.accept(path.tolist())


def _pages(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_SIZE)


def head_index(slots: NDArray[np.int64], num_kv_heads: int, device: torch.device) -> torch.Tensor:
    """Rows (len(slots) * H_kv,) of a layer's flat view that hold `slots`, slot by slot, head by head."""
    page, place = np.divmod(slots, PAGE_SIZE)
    heads = np.arange(num_kv_heads, dtype=np.int64) * PAGE_SIZE
    index = (page * (num_kv_heads * PAGE_SIZE) + place)[:, None] + heads
    return torch.from_numpy(index.reshape(-1)).to(device)
