"""Continuations are scored as each alone would be, whatever their shapes, whoever runs beside, whatever the room."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import LLM
from paceline.engine.continuations import Continuations
from paceline.testing import ScriptedTarget

VOCAB = 7
Tokens = tuple[int, ...]


def logits(history: Tokens) -> np.ndarray:
    return np.random.default_rng([len(history), *history]).normal(size=VOCAB)


def expected(target: ScriptedTarget, prompt: Tokens, continuation: Tokens) -> list[float]:
    """By the definition: the log-softmax of each row, in float64."""
    found = []
    for i, token in enumerate(continuation):
        row = target.logits((*prompt, *continuation[:i])).astype(np.float64)
        found.append(row[token] - np.log(np.exp(row - row.max()).sum()) - row.max())
    return found


def continuations(longest: int) -> st.SearchStrategy[list[Tokens]]:
    """Several of few kinds of tokens, some of them grown out of others: they share beginnings."""
    tokens = st.lists(st.integers(0, 2), min_size=1, max_size=longest).map(tuple)
    grown = st.tuples(tokens, st.lists(st.tuples(st.integers(1, longest), tokens), max_size=6))
    return grown.map(lambda one: [one[0], *(one[0][:cut] + rest for cut, rest in one[1])])


@settings(max_examples=25, deadline=None)
@given(continuations(90), st.integers(1, 70), st.integers(2, 64), st.sampled_from([None, 400]))
def test_they_are_scored_as_the_definition_says(
    several: list[Tokens], length: int, max_rows: int, cache_tokens: int | None
) -> None:
    target = ScriptedTarget(logits, VOCAB, max_rows=max_rows, cache_tokens=cache_tokens)
    prompt = tuple(np.random.default_rng(length).integers(0, VOCAB, length).tolist())
    with LLM.from_target(target) as llm:
        for score, continuation in zip(llm.score(prompt, several), several, strict=True):
            assert score.token_ids == continuation
            assert score.token_logprobs == pytest.approx(expected(target, prompt, continuation), abs=1e-6)
    assert target.num_held == 0


@settings(max_examples=60, deadline=None)
@given(continuations(150), st.integers(1, 64))
def test_no_more_is_read_than_twice_what_there_is(several: list[Tokens], max_rows: int) -> None:
    """Half of a forward at most is a path that has been read before."""
    tree, num_rows = Continuations(several), 0
    num_inner = tree.num_unread
    assert num_inner == len({one[:i] for one in several for i in range(len(one))})
    while tree.num_unread:
        before = tree.num_unread
        rows = tree.num_rows(max_rows)
        assert tree.least_rows <= rows <= max(max_rows, 1)
        part = tree.tree(rows)
        assert len(part) < rows
        tree.take(np.zeros((len(part) + 1, VOCAB), np.float32))
        num_rows += len(part) + 1
        assert tree.num_unread < before
        if tree.num_unread:
            tree.move(max_rows)
    assert num_rows <= 2 * num_inner + 1
