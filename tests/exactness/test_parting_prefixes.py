"""Requests that begin alike and then part: batched, each has the bits that it has alone, on both paths.

They share the pages of what they have in common, so nothing about a page says whose row it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactness.decoding import Job, RandomTrees, decode
from exactness.subjects import Subject, job
from paceline.model.rows import Blocks
from paceline.native.library import VARIABLE, library


def load_with(setting: str, architecture: str, **changes: Any) -> Subject:
    """A model loaded with the native kernels or without."""
    with patch.dict("os.environ", {VARIABLE: setting}):
        library.cache_clear()
        subject = Subject(architecture, **changes)
    library.cache_clear()
    return subject


@pytest.fixture(scope="module", params=["native", "modules"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Llama, whose tiles before the last two are shared by rows, and which keeps no row from any tile."""
    loaded = load_with("" if request.param == "native" else "0", "llama")
    yield loaded
    loaded.llm.close()


def parting(shared: int, own: list[int], seed: int, **options) -> list[Job]:
    """Jobs whose prompts have their first tokens in common, and then so many of their own."""
    start = job(shared, seed).prompt if shared else ()
    return [
        Job((*start, *job(length, seed + 1 + i).prompt), {"max_tokens": 5, **options}, i)
        for i, length in enumerate(own)
    ]


def test_two_that_part_after_one_page(subject: Subject) -> None:
    jobs = parting(64, [140, 141], seed=1)
    assert subject.plain.differences(jobs, decode(subject.target, jobs)) == []


def test_a_sequence_known_by_its_first_page_is_found_out(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that this file is about, planted again where rows are gathered into blocks."""
    if subject.decoder.is_exact_by_construction:
        pytest.skip("the native kernels gather no rows")
    jobs = parting(64, [140, 141], seed=1)
    assert subject.plain.differences(jobs, decode(subject.target, jobs)) == []
    add = Blocks.add
    monkeypatch.setattr(Blocks, "add", lambda own, row, item, tile, pages: add(own, row, int(pages[0]), tile, pages))
    assert subject.plain.differences(jobs, decode(subject.target, jobs)) != []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shared=st.integers(0, 270),
    own=st.lists(st.integers(1, 230), min_size=2, max_size=4),
    seed=st.integers(0, 50),
    temperature=st.sampled_from([0.0, 1.0]),
)
def test_wherever_they_part(subject: Subject, shared: int, own: list[int], seed: int, temperature: float) -> None:
    jobs = parting(shared, own, 10 * seed, temperature=temperature)
    drafter = RandomTrees(subject.plain, jobs, seed)
    assert subject.plain.differences(jobs, decode(subject.target, jobs, drafter)) == []


@pytest.mark.parametrize(("length", "max_tokens"), [(70, 65), (131, 70), (201, 11)])
def test_samples_of_one_prompt(subject: Subject, length: int, max_tokens: int) -> None:
    """Decoded together, and one after the other."""
    prompt = list(job(length, 3).prompt)
    options = {"n": 3, "temperature": 1.0, "seed": 5, "max_tokens": max_tokens}
    together = subject.llm.generate([prompt], tenant="together", **options)
    with patch.object(subject.llm.engine.scheduler, "max_running", 1):
        apart = subject.llm.generate([prompt], tenant="apart", **options)
    for one, other in zip(together, apart, strict=True):
        assert [(t.id, t.logprob) for t in one.tokens] == [(t.id, t.logprob) for t in other.tokens]
