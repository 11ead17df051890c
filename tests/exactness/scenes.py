"""Batch-invariant attention without a model: trees laid out in a pool where everything else is NaN."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from paceline.model.attention import batch_invariant_attention
from paceline.model.pool import PAGE_SIZE, CachedSequence, LayerShape, PagePool, head_index
from paceline.model.rows import Rows, TreeWork, tree_rows

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    """Trees on sequences of some lengths, in a layer of some shape."""

    shape: LayerShape
    group: int  # query heads per key head
    trees: tuple[tuple[int, tuple[int, ...]], ...]  # committed positions, and each row's parent
    window: int
    softcap: float
    dtype: torch.dtype
    padding: int
    seed: int
    sinks: float = 0.0  # how large those of the heads are; 0 is none
    relative: str = ""  # "slopes" or "distances": what is added to scores
    chunk: int = 0

    @property
    def how(self) -> dict[str, Any]:
        how = {"scaling": self.shape.key_dim**-0.5, "window": self.window, "softcap": self.softcap, "chunk": self.chunk}
        return {**how, **self.added}

    @cached_property
    def added(self) -> dict[str, torch.Tensor]:
        """Sinks (H,), slopes (H,) or distances (H, n)."""
        heads, generator = self.shape.num_kv_heads * self.group, torch.Generator().manual_seed(self.seed)
        found = {}
        if self.sinks:
            found["sinks"] = (torch.randn(heads, generator=generator) * self.sinks).to(self.dtype)
        if self.relative == "slopes":
            found["slopes"] = torch.rand(heads, generator=generator) * 0.1
        if self.relative == "distances":
            found["distances"] = torch.randn(heads, 1 + self.seed * 37 % 150, generator=generator)
        return found

    def visible(self, position: int) -> int:
        """The first position that a row sees."""
        if self.chunk:
            return position // self.chunk * self.chunk
        return max(0, position + 1 - self.window) if self.window else 0


class Scene:
    """A case laid out in a pool. What no row may depend on is NaN: free pages, and slots that hold nothing."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = torch.Generator().manual_seed(case.seed)
        sizes = [length // PAGE_SIZE + 2 for length, _ in case.trees]
        self.pool = PagePool([case.shape], 1 + sum(sizes) + 2 * max(sizes), case.dtype, CPU)
        [self.layer] = self.pool.layers
        self.layer.keys[1:] = torch.nan
        self.layer.values[1:] = torch.nan
        self.work = [self._tree(length, parents) for length, parents in case.trees]
        self.num_rows = sum(len(item.tokens) for item in self.work)
        self.query = self.normal(self.num_rows, case.shape.num_kv_heads * case.group, case.shape.key_dim)

    def normal(self, *size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=self.random) * 1.5).to(self.case.dtype)

    def _tree(self, length: int, parents: tuple[int, ...]) -> TreeWork:
        sequence = self.pool.reserve(length + PAGE_SIZE)
        assert sequence is not None
        self.fill(sequence, np.arange(length + len(parents)))
        sequence.length = length
        return TreeWork(sequence, [0] * len(parents), parents)

    def fill(self, sequence: CachedSequence, positions: np.ndarray) -> None:
        shape = self.case.shape
        index = head_index(sequence.slots(positions), shape.num_kv_heads, CPU)
        size = len(positions), shape.num_kv_heads
        self.layer.write(index, self.normal(*size, shape.key_dim), self.normal(*size, shape.value_dim))

    def attend(self, rows: Rows, query: torch.Tensor) -> torch.Tensor:
        padded = torch.zeros(len(rows), *query.shape[1:], dtype=query.dtype)
        padded[: len(query)] = query
        return batch_invariant_attention(padded, self.layer, rows, **self.case.how)[: len(query)]

    def copy(self, slots: np.ndarray) -> CachedSequence:
        """A sequence of its own that holds what stands at `slots`, the last of it not committed."""
        other = self.pool.reserve(len(slots) + PAGE_SIZE)
        assert other is not None
        heads = self.case.shape.num_kv_heads
        places = other.slots(np.arange(len(slots)))
        source, destination = head_index(slots, heads, CPU), head_index(places, heads, CPU)
        for memory in (self.layer.keys, self.layer.values):
            flat = memory.view(-1, memory.shape[-1])
            flat[destination] = flat[source]
        other.length = len(slots) - 1
        return other

    def path_slots(self) -> list[np.ndarray]:
        """For each row, the slots on its path, from position 0 on."""
        found = []
        for item in self.work:
            paths: list[list[int]] = []
            committed = np.arange(item.sequence.length)
            for row, parent in enumerate(item.parents):
                paths.append([*(paths[parent] if parent >= 0 else ()), row])
                found.append(item.sequence.slots(np.append(committed, item.sequence.length + np.array(paths[row]))))
        return found


def reference(case: Case, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> np.ndarray:
    """Plain softmax attention in float64: query (H, D) over keys (T, H_kv, D) and values (T, H_kv, D_v)."""
    seen = slice(case.visible(len(keys) - 1), None)
    wide_keys, wide_values = (np.repeat(t[seen].double().numpy(), case.group, 1) for t in (keys, values))
    scores = np.einsum("hd,thd->ht", query.double().numpy() * case.how["scaling"], wide_keys)
    if case.softcap:
        scores = np.tanh(scores / case.softcap) * case.softcap
    ahead = np.arange(len(keys))[::-1][seen]
    if "slopes" in case.added:
        scores = scores - case.added["slopes"].double().numpy()[:, None] * ahead
    if "distances" in case.added:
        table = case.added["distances"].double().numpy()
        scores = scores + table[:, np.minimum(ahead, table.shape[1] - 1)]
    if case.sinks:
        scores = np.concatenate([scores, case.how["sinks"].double().numpy()[:, None]], 1)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return np.einsum("ht,thd->hd", weights[:, : len(wide_values)], wide_values)


def stored(layer_part: torch.Tensor, slots: np.ndarray) -> torch.Tensor:
    """(T, H_kv, D) at slots."""
    page, place = np.divmod(slots, PAGE_SIZE)
    return layer_part[page, :, place]


def rows_that_differ_alone(case: Case) -> list[int]:
    """Rows whose bits are others when they are alone with their path, all of it committed."""
    scene = Scene(case)
    together = scene.attend(tree_rows(scene.work, scene.num_rows + case.padding, CPU), scene.query)
    found = []
    for row, slots in enumerate(scene.path_slots()):
        other = scene.copy(slots)
        for num_rows in (1, 16):
            alone = scene.attend(tree_rows([TreeWork(other, [0], [-1])], num_rows, CPU), scene.query[row : row + 1])
            if not torch.equal(alone[0], together[row]):
                found.append(row)
        scene.pool.release(other)
    return found
