"""A draft model's proposal in one native call: the trees of the loop in Python, whatever was asked."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paceline
from paceline.drafters._draft_model import Asked, ModuleLevels, NativeLevels, Shape
from paceline.drafters.model import ModelDrafter
from paceline.engine.request import NO_HINTS, DraftLimits, Request
from paceline.engine.tree import DraftTree
from paceline.options import Call
from paceline.params import SamplingParams

PROMPT = "Once upon a time, there was a little dog. "
LONGEST = 600  # tokens of a prompt: several chunks of attention


@pytest.fixture(scope="module")
def native(bundled: paceline.LLM) -> NativeLevels:
    drafter = ModelDrafter()
    drafter.attach(bundled._runtime.environment)
    if not isinstance(drafter._levels, NativeLevels):
        pytest.skip("there are no native kernels")
    return drafter._levels


def trees_of(levels, llm: paceline.LLM, asked, shape: Shape) -> list[list[DraftTree]]:
    """Two proposals each, the second behind a few more tokens; requests come as (prompt, sampling, limits)."""
    requests: list[Request] = []
    for prompt, sampling, _ in asked:
        requests += llm._runtime.factory.requests(prompt, Call(SamplingParams(max_tokens=90, **sampling)), [], NO_HINTS)
    fed = [levels.take_up(r, levels.decoder.pool.reserve(len(r.tokens) + 200)) for r in requests]
    try:
        found = []
        for more in ([], [700, 701, 702]):
            for request in requests:
                request.tokens += more
            work = [Asked(r, f, limits) for r, f, (*_, limits) in zip(requests, fed, asked, strict=True)]
            found.append(levels.grow(work, shape, "model"))
            for one in fed:
                one.clear()
        return found
    finally:
        for one in fed:
            levels.decoder.pool.release(one.sequence)


limits = st.builds(
    DraftLimits, st.integers(1, 64), st.integers(1, 20), st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.3, 5.0])
)
samplings = st.one_of(
    st.just({"temperature": 0.0}),
    st.builds(dict, temperature=st.sampled_from([0.1, 0.7, 1.0, 5.0]), seed=st.integers(0, 2**64 - 1)),
    st.just({"temperature": 0.8, "seed": 3, "regex": "[Qqx]{3,30}"}),
    st.just({"temperature": 0.0, "regex": "[Qqx]{3,30}"}),
)
prompts = st.tuples(st.integers(0, LONGEST), st.integers(0, 99))
asked_of = st.lists(st.tuples(prompts, samplings, limits), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(asked_of, st.integers(1, 8), st.integers(1, 8))
def test_trees_are_those_of_the_loop_in_python(native, bundled, specs, width: int, branch: int) -> None:
    asked = []
    for (length, seed), sampling, limit in specs:
        noise = np.random.default_rng(seed).integers(300, 4000, length).tolist()
        asked.append((bundled.encode(PROMPT)[: 1 + seed % 12] + noise, sampling, limit))
    expected = trees_of(ModuleLevels(native.decoder), bundled, asked, Shape(width, branch))
    found = trees_of(native, bundled, asked, Shape(width, branch))
    for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert (ours.tokens, ours.parents) == (theirs.tokens, theirs.parents)
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-9)
        assert ours.sources == theirs.sources


def test_trees_as_deep_and_wide_as_they_may_be_fit(native, bundled) -> None:
    asked = [(bundled.encode(PROMPT), {"temperature": 1.0, "seed": 1}, DraftLimits(64, 32))] * 3
    expected = trees_of(ModuleLevels(native.decoder), bundled, asked, Shape(8, 8))
    assert trees_of(native, bundled, asked, Shape(8, 8))[0][0].tokens == expected[0][0].tokens
    assert len(expected[0][0]) == 64
