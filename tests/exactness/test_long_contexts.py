"""Contexts of thousands of tokens: read by parts, given up and taken up again, found at any page, drafted behind."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest

from exactness.decoding import Job, RandomTrees, decode
from exactness.subjects import Subject, job
from paceline.engine.engine import Engine
from paceline.model.prefix import PAGE_SIZE, PrefixCache
from paceline.pacing import FixedPacer

LENGTH = 3_001


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    loaded = Subject("llama", max_position_embeddings=4096, cache_tokens=16_384)
    yield loaded
    loaded.llm.close()


@pytest.fixture(scope="module")
def jobs(subject: Subject) -> list[Job]:
    """The longest, and others that begin as it does up to some page; each decoded once with nothing in the cache."""
    rng = np.random.default_rng(5)
    whole = job(LENGTH, 1, 12)
    found = [whole, job(40, 2, 90, temperature=1.0)]
    for seed in range(3, 7):
        shared, own = int(rng.integers(1, LENGTH)), job(int(rng.integers(1, 150)), seed).prompt
        found.append(Job((*whole.prompt[:shared], *own), {"max_tokens": 11, "temperature": 0.7}, seed))
    with patch.object(PrefixCache, "search", return_value=[]):
        assert all(subject.plain[one].tokens for one in found)
    return found


def test_logits_are_the_models_own(subject: Subject, jobs: list[Job]) -> None:
    one = subject.plain[jobs[0]]
    theirs = subject.own_logits([*jobs[0].prompt, *one.tokens[:-1]])[LENGTH - 1 :]
    np.testing.assert_allclose(np.stack(one.rows), theirs, rtol=0, atol=1e-4)


def test_read_by_parts_beside_others_and_found_at_any_page(subject: Subject, jobs: list[Job]) -> None:
    drafter = RandomTrees(subject.plain, jobs, 1)
    for order in (jobs, jobs[::-1]):
        assert subject.plain.differences(order, decode(subject.target, order, drafter, 23)) == []


def test_a_prompt_is_read_on_from_where_another_was_given_up(subject: Subject) -> None:
    one = job(LENGTH, 11, 9)
    engine = Engine(subject.target, FixedPacer(0))
    first = one.request(subject.target)
    engine.add(first)
    for _ in range(20):
        engine.step()
    read = LENGTH - 1 - subject.target.num_unread(first)
    first.cancel()
    engine.step()
    assert PAGE_SIZE < read < LENGTH - PAGE_SIZE
    assert LENGTH - 1 - subject.target.num_unread(one.request(subject.target)) == read // PAGE_SIZE * PAGE_SIZE
    again = decode(subject.target, [one])
    with patch.object(PrefixCache, "search", return_value=[]):
        assert subject.plain.differences([one], again) == []
