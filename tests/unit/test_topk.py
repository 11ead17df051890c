"""The likeliest tokens of rows against a full sort and the whole softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.sampling.topk import SAMPLED, likeliest


def logits_of(seed: int, num_rows: int, vocab_size: int, levels: int, masked: float) -> np.ndarray:
    """Random logits; few `levels` make many ties, `masked` is the share of -inf."""
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(scale=3, size=(num_rows, vocab_size)) * levels) / levels
    logits[rng.random(logits.shape) < masked] = -np.inf
    logits[:, rng.integers(vocab_size)] = 1.0  # something is allowed
    return logits.astype(np.float32)


sizes = st.sampled_from([1, 2, 7, 97, 128, 1000, 4096, 4097])


@given(st.integers(0, 99), st.integers(1, 4), sizes, st.sampled_from([1, 1000]), st.sampled_from([0, 0.5, 0.999]))
def test_the_tokens_are_those_of_a_full_sort(
    seed: int, num_rows: int, vocab_size: int, levels: int, masked: float
) -> None:
    logits = logits_of(seed, num_rows, vocab_size, levels, masked)
    rows = list(range(num_rows))[::-2]
    count = 1 + seed % 12
    ids, chances = likeliest(logits, rows, count)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    true = weights / weights.sum(axis=1, keepdims=True)
    assert ids.shape == chances.shape == (len(rows), min(count, vocab_size))
    for row, tokens, found in zip(rows, ids, chances, strict=True):
        assert len(set(tokens.tolist())) == len(tokens)
        assert np.array_equal(logits[row, tokens], -np.sort(-logits[row])[:count])
        assert found == pytest.approx(true[row, tokens], rel=1e-4)
        assert found.sum() <= 1 + 1e-6


@pytest.mark.parametrize("vocab_size", [50_257, 151_936])
def test_a_large_vocabulary_has_its_tokens_exactly_and_its_chances_nearly(vocab_size: int) -> None:
    assert vocab_size >= 2 * SAMPLED
    logits = logits_of(1, 3, vocab_size, 1000, 0.0)
    logits[:, 77] = 12.0
    ids, chances = likeliest(logits, [0, 2], 8)
    for row, tokens, found in zip([0, 2], ids, chances, strict=True):
        assert np.array_equal(logits[row, tokens], -np.sort(-logits[row])[:8])
        true = np.exp(logits[row, tokens].astype(np.float64)) / np.exp(logits[row].astype(np.float64)).sum()
        assert found == pytest.approx(true, rel=0.5)
        assert found.sum() <= 1 + 1e-6
