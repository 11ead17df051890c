"""Canonical attention on its own: the right numbers, from a row's own path and nothing else, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.target.attention import canonical_attention
from paceline.target.pool import PAGE_SIZE, CachedSequence, LayerShape, PagePool, head_index
from paceline.target.rows import Rows, TreeWork, chunk_rows, tree_rows

CPU = torch.device("cpu")
ROUNDING = 1e-5  # of float32 sums over up to 450 values of size 6; one key too many or too few is 1e-3
LENGTHS = [0, 1, 62, 63, 64, 65, 127, 128, 129, 191, 192, 257, 320, 385]
many = settings(max_examples=40, deadline=None, derandomize=True)


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

    @property
    def how(self) -> dict[str, float]:
        return {"scaling": self.shape.key_dim**-0.5, "window": self.window, "softcap": self.softcap}


@st.composite
def trees(draw: st.DrawFn, max_rows: int = 12) -> tuple[int, tuple[int, ...]]:
    length = draw(st.one_of(st.sampled_from(LENGTHS), st.integers(0, 400)))
    rows = draw(st.integers(1, max_rows))
    is_chain = draw(st.booleans())
    return length, (-1, *(i if is_chain else draw(st.integers(max(0, i - 3), i)) for i in range(rows - 1)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads, dim = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([4, 12, 20, 36, 64]))
    return Case(
        shape=LayerShape(heads, dim, draw(st.sampled_from([dim, dim, 24]))),
        group=draw(st.sampled_from([1, 2, 3, 8])),
        trees=tuple(draw(st.lists(trees(), min_size=1, max_size=4))),
        window=draw(st.sampled_from([0, 0, 1, 37, 64, 65, 130])),
        softcap=draw(st.sampled_from([0.0, 0.0, 2.0])),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        padding=draw(st.integers(0, 5)),
        seed=draw(st.integers(0, 99)),
    )


class Scene:
    """A case laid out in a pool. What no row may depend on is NaN: free pages, and slots that hold nothing."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.random = torch.Generator().manual_seed(case.seed)
        self.pool = PagePool([case.shape], 60, case.dtype, CPU)
        [self.layer] = self.pool.layers
        self.layer.keys[1:] = torch.nan
        self.layer.values[1:] = torch.nan
        self.work = [self._tree(length, parents) for length, parents in case.trees]
        self.num_rows = sum(len(item.tokens) for item in self.work)
        self.query = self._normal(self.num_rows, case.shape.num_kv_heads * case.group, case.shape.key_dim)

    def _normal(self, *size: int) -> torch.Tensor:
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
        self.layer.write(index, self._normal(*size, shape.key_dim), self._normal(*size, shape.value_dim))

    def attend(self, rows: Rows, query: torch.Tensor) -> torch.Tensor:
        padded = torch.zeros(len(rows), *query.shape[1:], dtype=query.dtype)
        padded[: len(query)] = query
        return canonical_attention(padded, self.layer, rows, **self.case.how)[: len(query)]

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
    seen = slice(max(0, len(keys) - case.window) if case.window else 0, None)
    wide_keys, wide_values = (np.repeat(t[seen].double().numpy(), case.group, 1) for t in (keys, values))
    scores = np.einsum("hd,thd->ht", query.double().numpy() * case.how["scaling"], wide_keys)
    if case.softcap:
        scores = np.tanh(scores / case.softcap) * case.softcap
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.einsum("ht,thd->hd", weights / weights.sum(1, keepdims=True), wide_values)


def stored(layer_part: torch.Tensor, slots: np.ndarray) -> torch.Tensor:
    """(T, H_kv, D) at slots."""
    page, place = np.divmod(slots, PAGE_SIZE)
    return layer_part[page, :, place]


@many
@given(cases())
def test_it_is_softmax_attention_over_the_path(case: Case):
    scene = Scene(case)
    out = scene.attend(tree_rows(scene.work, scene.num_rows + case.padding, CPU), scene.query)
    for row, slots in enumerate(scene.path_slots()):
        expected = reference(case, scene.query[row], stored(scene.layer.keys, slots), stored(scene.layer.values, slots))
        np.testing.assert_allclose(out[row].numpy(), expected, rtol=0, atol=ROUNDING)


@many
@given(cases())
def test_a_row_alone_on_its_committed_path_has_the_same_bits(case: Case):
    scene = Scene(case)
    together = scene.attend(tree_rows(scene.work, scene.num_rows + case.padding, CPU), scene.query)
    for row, slots in enumerate(scene.path_slots()):
        other = scene.pool.reserve(len(slots) + PAGE_SIZE)
        assert other is not None
        heads = case.shape.num_kv_heads
        places = other.slots(np.arange(len(slots)))
        scene.layer.move(head_index(slots, heads, CPU), head_index(places, heads, CPU))
        other.length = len(slots) - 1
        for num_rows in (1, 16):
            alone = scene.attend(tree_rows([TreeWork(other, [0], [-1])], num_rows, CPU), scene.query[row : row + 1])
            assert torch.equal(alone[0], together[row])
        scene.pool.release(other)


@pytest.mark.parametrize("window", [0, 37, 64, 100])
@pytest.mark.parametrize("start", [0, 64, 128, 256])
def test_a_chunk_of_a_prompt_is_softmax_attention_too(start: int, window: int):
    case = Case(LayerShape(2, 20, 12), 3, ((start, (-1,)),), window, 0.0, torch.float32, 0, 5)
    scene = Scene(case)
    sequence = scene.work[0].sequence
    scene.fill(sequence, np.arange(start, start + PAGE_SIZE))
    query = scene._normal(PAGE_SIZE, 6, 20)
    out = scene.attend(chunk_rows(sequence, [0] * PAGE_SIZE, CPU), query)
    for row in range(PAGE_SIZE):
        slots = sequence.slots(np.arange(start + row + 1))
        expected = reference(case, query[row], stored(scene.layer.keys, slots), stored(scene.layer.values, slots))
        np.testing.assert_allclose(out[row].numpy(), expected, rtol=0, atol=ROUNDING)


def test_a_draft_as_deep_as_a_tile_stays_in_the_tail():
    for length in (0, 1, 63, 64, 65, 127, 128, 200):
        chain = tuple(range(-1, PAGE_SIZE - 1))
        case = Case(LayerShape(1, 8, 8), 2, ((length, chain),), 0, 0.0, torch.float32, 0, length)
        scene = Scene(case)
        out = scene.attend(tree_rows(scene.work, PAGE_SIZE, CPU), scene.query)
        for row, slots in enumerate(scene.path_slots()):
            keys, values = stored(scene.layer.keys, slots), stored(scene.layer.values, slots)
            expected = reference(case, scene.query[row], keys, values)
            np.testing.assert_allclose(out[row].numpy(), expected, rtol=0, atol=ROUNDING)
