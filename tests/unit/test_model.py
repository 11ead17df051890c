"""The draft model's cache: whatever was accepted, rejected or not asked for, drafts are those of a fresh reading."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

import paceline
from paceline.drafters.model import ModelDrafter
from paceline.engine.request import NO_HINTS, Request, StepOutcome, Token
from paceline.engine.tree import DraftTree
from paceline.params import SamplingParams

PROMPT = "Once upon a time, there was a little"


@pytest.fixture(scope="module")
def drafter(bundled: paceline.LLM) -> ModelDrafter:
    made = bundled._runtime.resolve("model")[0]
    assert isinstance(made, ModelDrafter)
    return made


def proposed(drafter: ModelDrafter, request: Request, num_stages: int) -> DraftTree:
    *_, last = islice(drafter.propose([request], [14]), num_stages)
    return last[0]


def deepest_path(tree: DraftTree, rng: np.random.Generator) -> list[int]:
    """A path from the root down to some leaf."""
    node = int(rng.integers(len(tree)))
    path: list[int] = []
    while node >= 0:
        path.append(node)
        node = tree.parents[node]
    return path[::-1]


def decode_with(drafter: ModelDrafter, llm: paceline.LLM, seed: int, temperature: float) -> int:
    """Steps with random verdicts, each proposal against that of a reading from the start; how many were compared."""
    rng = np.random.default_rng(seed)
    params, ids = SamplingParams(max_tokens=150, temperature=temperature, seed=seed), llm.encode(PROMPT)
    factory = llm._runtime.factory
    [request] = factory.requests(ids, params, [], NO_HINTS)
    drafter.start(request)
    compared = 0
    try:
        for _ in range(12):
            num_stages = int(rng.integers(1, 7))
            tree = proposed(drafter, request, num_stages)
            again = SamplingParams(max_tokens=9, temperature=temperature, seed=seed)
            [fresh] = factory.requests(request.tokens, again, [], NO_HINTS)
            drafter.start(fresh)
            expected = proposed(drafter, fresh, num_stages)
            drafter.finish(fresh)
            assert (tree.tokens, tree.parents) == (expected.tokens, expected.parents)
            assert tree.scores == pytest.approx(expected.scores, abs=0.02)  # reading and decoding may round differently
            compared += len(tree)
            path = deepest_path(tree, rng)[: int(rng.integers(0, 5))]
            said = [*(tree.tokens[node] for node in path), int(rng.integers(300, 4000))]
            request.tokens += said
            tokens = tuple(Token(token, "", "", 0.0, 0.0) for token in said)
            drafter.observe(StepOutcome(request, tree, tuple(path), tokens, np.zeros((1, 1), np.float32)))
            if rng.random() < 0.3:  # a step in which it was not asked
                request.tokens += rng.integers(300, 4000, int(rng.integers(1, 4))).tolist()
    finally:
        drafter.finish(request)
    return compared


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_drafts_after_any_verdicts_are_those_of_a_fresh_reading(
    drafter, bundled, seed: int, temperature: float
) -> None:
    assert decode_with(drafter, bundled, seed, temperature) > 50
    assert not drafter._states


FAULTS = {
    "the first rows kept instead of the accepted": lambda path: np.arange(len(path)),
    "a rejected row kept": lambda path: np.append(path, path[-1] + 1 if len(path) else 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_cache_of_wrong_content_is_noticed(drafter, bundled, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    pool = type(drafter._attached().pool)
    keep = pool.keep_path
    monkeypatch.setattr(pool, "keep_path", lambda self, sequence, path: keep(self, sequence, FAULTS[fault](path)))
    with pytest.raises(AssertionError):
        sum(decode_with(drafter, bundled, seed, 0.0) for seed in (1, 2, 3))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_under_a_grammar_the_first_tokens_are_allowed_ones(
    bundled: paceline.LLM, drafter: ModelDrafter, temperature: float
) -> None:
    params = SamplingParams(max_tokens=40, temperature=temperature, seed=3, regex="[Qqx]{3,30}")
    [request] = bundled._runtime.factory.requests(bundled.encode(PROMPT), params, [], NO_HINTS)
    assert request.sampler.grammar is not None
    allowed = np.flatnonzero(request.sampler.grammar.mask())
    drafter.start(request)
    try:
        tree = proposed(drafter, request, 3)
    finally:
        drafter.finish(request)
    roots = [token for token, parent in zip(tree.tokens, tree.parents, strict=True) if parent < 0]
    assert roots
    assert set(roots) <= set(allowed.tolist())
