"""Batch-invariant attention on its own: the right numbers, from a row's own path and nothing else, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exactness.scenes import CPU, Case, Scene, reference, rows_that_differ_alone, stored
from paceline.model.pool import PAGE_SIZE, LayerShape
from paceline.model.rows import chunk_rows, tree_rows

ROUNDING = 1e-5  # of float32 sums over up to 450 values of size 6; one key too many or too few is 1e-3
LENGTHS = [0, 1, 62, 63, 64, 65, 127, 128, 129, 191, 192, 257, 320, 385]
many = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def trees(draw: st.DrawFn, max_rows: int = 12) -> tuple[int, tuple[int, ...]]:
    length = draw(st.one_of(st.sampled_from(LENGTHS), st.integers(0, 400)))
    rows = draw(st.integers(1, max_rows))
    is_chain = draw(st.booleans())
    return length, (-1, *(i if is_chain else draw(st.integers(max(0, i - 3), i)) for i in range(rows - 1)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    heads, dim = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([4, 12, 20, 36, 64]))
    window, chunk = draw(
        st.sampled_from([(0, 0), (0, 0), (1, 0), (37, 0), (64, 0), (65, 0), (130, 0), (0, 50), (0, 128)])
    )
    return Case(
        shape=LayerShape(heads, dim, draw(st.sampled_from([dim, dim, 24]))),
        group=draw(st.sampled_from([1, 2, 3, 8])),
        trees=tuple(draw(st.lists(trees(), min_size=1, max_size=4))),
        window=window,
        softcap=draw(st.sampled_from([0.0, 0.0, 2.0])),
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        padding=draw(st.integers(0, 5)),
        seed=draw(st.integers(0, 99)),
        relative=draw(st.sampled_from(["", "slopes", "distances"])),
        chunk=chunk,
        sinks=draw(st.sampled_from([0.0, 0.0, 2.0, 200.0])),
    )


def assert_softmax(scene: Scene, out: torch.Tensor, query: torch.Tensor, paths: Iterable[np.ndarray]) -> None:
    """Each row of `out` is plain attention over the slots of its path."""
    for row, slots in enumerate(paths):
        keys, values = stored(scene.layer.keys, slots), stored(scene.layer.values, slots)
        expected = reference(scene.case, query[row], keys, values)
        np.testing.assert_allclose(out[row].numpy(), expected, rtol=0, atol=ROUNDING)


@many
@given(cases())
def test_it_is_softmax_attention_over_the_path(case: Case):
    scene = Scene(case)
    out = scene.attend(tree_rows(scene.work, scene.num_rows + case.padding, CPU), scene.query)
    assert_softmax(scene, out, scene.query, scene.path_slots())


@many
@given(cases())
def test_a_row_alone_on_its_committed_path_has_the_same_bits(case: Case):
    assert rows_that_differ_alone(case) == []


@pytest.mark.parametrize("window", [0, 1, 37, 64, 65, 66, 100, 128, 129, 130, 192, 194])
@pytest.mark.parametrize("start", [0, 64, 128, 256])
def test_a_chunk_of_a_prompt_is_softmax_attention_too(start: int, window: int):
    case = Case(LayerShape(2, 20, 12), 3, ((start, (-1,)),), window, 0.0, torch.float32, 0, 5)
    if window == 66:
        case = replace(case, window=0, chunk=66)
    elif window in (37, 100):
        case = replace(case, relative="slopes" if window == 37 else "distances")
    scene = Scene(case)
    sequence = scene.work[0].sequence
    scene.fill(sequence, np.arange(start, start + PAGE_SIZE))
    query = scene.normal(PAGE_SIZE, 6, 20)
    out = scene.attend(chunk_rows(sequence, [0] * PAGE_SIZE, CPU), query)
    assert_softmax(scene, out, query, [sequence.slots(np.arange(start + row + 1)) for row in range(PAGE_SIZE)])


def test_a_draft_as_deep_as_a_tile_stays_in_the_tail():
    for length in (0, 1, 63, 64, 65, 127, 128, 200):
        chain = tuple(range(-1, PAGE_SIZE - 1))
        case = Case(LayerShape(1, 8, 8), 2, ((length, chain),), 0, 0.0, torch.float32, 0, length)
        scene = Scene(case)
        out = scene.attend(tree_rows(scene.work, PAGE_SIZE, CPU), scene.query)
        assert_softmax(scene, out, scene.query, scene.path_slots())
