"""Continuations are scored as each alone would be, whatever their shapes, whoever runs beside, whatever the room."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import LLM
from paceline.engine.continuations import Continuations
from paceline.errors import ConfigError, ContextLengthError, DeadlineError, RequestError
from paceline.testing import ScriptedTarget
from unit.stepped import SteppedTarget, until

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


def fake(**options: object) -> LLM:
    return LLM.from_target(ScriptedTarget(logits, VOCAB, **options))  # type: ignore[arg-type]


def test_a_list_of_prompts_is_answered_with_a_list_each() -> None:
    with fake() as llm:
        first, second = llm.score([[1, 2], [3]], [[[4], [5, 6]], [[0]]])
        assert [score.token_ids for score in first] == [(4,), (5, 6)]
        assert [second] == [llm.score([3], [[0]])]
        assert llm.score([], []) == []
        assert asyncio.run(llm.ascore([1, 2], [[4], [5, 6]])) == first
        assert (len(first[1]), first[1].logprob) == (2, sum(first[1].token_logprobs))


def test_what_the_model_would_say_greedily_is_said_to_be_so() -> None:
    with fake() as llm:
        said = llm.generate([1, 2], max_tokens=9).token_ids
        other = [*said[:-1], (said[-1] + 1) % VOCAB]
        assert [score.is_greedy for score in llm.score([1, 2], [said, said[:3], other])] == [True, True, False]


@pytest.mark.parametrize(
    ("prompt", "several", "error", "message"),
    [
        ([1], [], RequestError, "continuations is empty; allowed: at least one"),
        ([1], [[]], RequestError, r"the continuation \[\] has no token of its own"),
        ({"prompt_token_ids": []}, [[1]], RequestError, "the prompt is empty"),
        ([1], [[VOCAB]], RequestError, f"token id {VOCAB} is outside the vocabulary; allowed: 0 to {VOCAB - 1}"),
        ([1], ["a"], RequestError, "no tokenizer; allowed: prompts and continuations of token ids"),
        ([1], "a", RequestError, "continuations is 'a'; allowed: a list"),
        ([1], [[1] * 21], ContextLengthError, r"prompt \(1 tokens\) and continuation \(21\) .* allowed: 21 together"),
        ([[1], [2]], [[[1]]], RequestError, "there are 2 prompts and 1 lists of continuations"),
    ],
)
def test_what_cannot_be_scored_is_refused(prompt: object, several: object, error: type, message: str) -> None:
    with fake(max_length=20) as llm, pytest.raises(error, match=message):
        llm.score(prompt, several)  # type: ignore[call-overload]


def test_what_fits_to_the_last_row_is_scored() -> None:
    """Nothing is asked of the last token: it needs no room."""
    with fake(max_length=20) as llm:
        assert len(llm.score([1], [[1] * 20])[0]) == 20


def test_options_that_mean_nothing_here_are_refused() -> None:
    with fake() as llm, pytest.raises(ConfigError, match="no option 'temperature' here; allowed: tenant, add_special"):
        llm.score([1], [[1]], temperature=1.0)  # type: ignore[call-overload]


def test_a_deadline_that_passes_ends_it() -> None:
    target = SteppedTarget()
    target.before = lambda: time.sleep(0.03)
    target.let(9)
    with LLM.from_target(target) as llm:
        with pytest.raises(DeadlineError):
            llm.score([1, 2], [[1] * 200], deadline_ms=20)
        until(lambda: target.num_held == 0)


def test_a_task_that_is_cancelled_ends_its_requests() -> None:
    target = SteppedTarget()

    async def cancelled(llm: LLM) -> None:
        task = asyncio.create_task(llm.ascore([1, 2], [[1] * 200]))
        await asyncio.to_thread(target.waits.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with LLM.from_target(target) as llm:
        asyncio.run(cancelled(llm))
        target.let(9)
        until(lambda: target.num_held == 0)


def test_scores_and_outputs_share_a_cache_that_is_too_small_for_all() -> None:
    """Who has least work waits again, is read again, and all end with what they would have alone."""
    several = [[i % 3, *([1] * 30), i % 2, *([2] * 30)] for i in range(4)]
    with fake() as llm:
        expected, said = llm.score([1, 2, 3], several), llm.generate([4] * 30, max_tokens=60)
    with fake(cache_tokens=150) as llm, llm.stream([4] * 30, max_tokens=60) as stream:
        tokens = [next(stream).id]
        assert llm.score([1, 2, 3], several) == expected
        assert [*tokens, *(token.id for token in stream)] == list(said.token_ids)
