"""The table in numpy and the one that is used here say the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.drafters._recycling import Table, make_table
from paceline.engine.request import DraftLimits


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([3, 7, 40, 300, 9001]), st.integers(1, 64))
def test_both_tables_learn_the_same_and_grow_the_same_trees(seed: int, vocab_size: int, width: int) -> None:
    rng, text = np.random.default_rng(seed), [seed % vocab_size]
    plain, quick = Table(vocab_size, width), make_table(vocab_size, width)
    for _ in range(12):
        start = len(text) - 1
        text += rng.integers(0, vocab_size, rng.integers(0, 6)).tolist()
        distinct = rng.permutation(np.unique(rng.normal(size=2 * vocab_size).astype(np.float32)))[:vocab_size]
        logits = rng.permuted(np.tile(distinct, (5, 1)), axis=1) * np.float32(rng.choice([0.5, 4.0, 8.0]))  # no ties
        rows = rng.permutation(5)[: rng.integers(1, 5)].tolist()
        pairs = [tuple(pair) for pair in rng.integers(0, vocab_size, (len(rows), 2)).tolist()]
        for table in (plain, quick):
            table.read(text, start)
            table.learn(logits, rows, pairs)
        for name in ("_tokens", "_followed", "_pairs"):
            np.testing.assert_array_equal(getattr(quick, name), getattr(plain, name))
        np.testing.assert_allclose(quick._chances, plain._chances, rtol=2e-4, atol=1e-9)
        quick._chances[:] = plain._chances  # near ties would fall otherwise
        limits = DraftLimits(int(rng.integers(0, 65)), int(rng.integers(1, 9)))
        asked = ((text[max(len(text) - 2, 0)], text[-1]), float(rng.choice([1e-6, 0.01, 0.2])), limits, "recycle")
        assert quick.grow(*asked) == plain.grow(*asked)
