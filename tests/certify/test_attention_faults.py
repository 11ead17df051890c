"""Attention in slot order is attention: what is planted is the order alone, whatever a family adds to it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from exactness.scenes import CPU, Case, Scene
from exactness.test_canonical_attention import ROUNDING, assert_softmax, cases
from paceline.certify.attention_faults import _SlotOrderStep
from paceline.model.attention import batch_invariant_attention
from paceline.model.picking import Picks, biases_of
from paceline.model.rows import tree_rows


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cases())
def test_it_is_softmax_attention_over_the_path(case: Case):
    scene = Scene(case)
    for part in (scene.layer.keys, scene.layer.values):
        part.nan_to_num_()  # what nobody sees is multiplied by zero here
    step = _SlotOrderStep(scene.pool, tree_rows(scene.work, scene.num_rows, CPU))
    assert_softmax(scene, step._attended(scene.query, scene.layer, **case.how), scene.query, scene.path_slots())


@settings(max_examples=8, deadline=None, derandomize=True)
@given(cases().filter(lambda case: case.shape.num_kv_heads == 1))  # as an indexer has one key
def test_rows_attend_to_what_they_picked(case: Case):
    """As they do in the order of their paths."""
    scene = Scene(case)
    for part in (scene.layer.keys, scene.layer.values):
        part.nan_to_num_()
    rows = tree_rows(scene.work, scene.num_rows, CPU)
    queries = scene.normal(scene.num_rows, 3, case.shape.key_dim)
    picks = Picks(queries, scene.query[:, :1], scene.normal(scene.num_rows, 3), 0.3, 40)
    how = case.how | {"picked": biases_of(picks, scene.layer, rows)}
    step = _SlotOrderStep(scene.pool, rows)
    canonical = batch_invariant_attention(scene.query, scene.layer, rows, **how)
    np.testing.assert_allclose(step._attended(scene.query, scene.layer, **how), canonical, rtol=0, atol=ROUNDING)
