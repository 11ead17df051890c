"""Continuations have the bits of scoring each alone, and of what decoding says of its own tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exactness.subjects import Subject, job
from exactness.test_parting_prefixes import load_with
from paceline.engine.continuations import Continuations

SUBJECTS = {
    "native": ("", "mistral", torch.bfloat16),
    "modules": ("0", "llama", torch.float32),
    "states": ("", "qwen3-next", torch.float32),  # no position can be forgotten
}
LENGTHS = (1, 2, 9, 63, 70)


@pytest.fixture(scope="module", params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    setting, architecture, dtype = SUBJECTS[request.param]
    loaded = load_with(setting, architecture, dtype=dtype)
    yield loaded
    loaded.llm.close()


def several(seed: int, lengths: list[int]) -> list[list[int]]:
    """Continuations of few kinds of tokens, each grown out of a beginning of the one before."""
    rng, grown = np.random.default_rng(seed), [[1]]
    for length in lengths:
        cut = int(rng.integers(0, len(grown[-1]) + 1))
        grown.append([*grown[-1][:cut], *rng.integers(0, 3, length).tolist()])
    return grown[1:]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 999), st.lists(st.sampled_from(LENGTHS), min_size=2, max_size=4), st.integers(1, 130))
def test_they_have_the_bits_of_each_alone(subject: Subject, seed: int, lengths: list[int], prompt_length: int) -> None:
    llm, prompt, given_ones = subject.llm, list(job(prompt_length, seed).prompt), several(seed, lengths)
    together = llm.score(prompt, given_ones, tenant="together")
    assert llm.score(prompt, given_ones, tenant="together") == together  # from the prefix cache
    assert [llm.score(prompt, [one], tenant="alone")[0] for one in given_ones] == together
    with llm.stream(prompt[:9], max_tokens=300, ignore_eos=True, drafters="none") as other:
        next(other)  # now few rows are read at a time
        assert llm.score(prompt, given_ones, tenant="beside") == together
    assert not llm.engine.scheduler.running


def test_they_have_the_bits_of_decoding(subject: Subject) -> None:
    llm, prompt = subject.llm, list(job(66, 3).prompt)
    out = llm.generate(prompt, max_tokens=70, ignore_eos=True, drafters="none")
    [score] = llm.score(prompt, [out.token_ids])
    assert score.is_greedy
    assert score.token_logprobs == tuple(token.logprob for token in out.tokens)


@pytest.mark.parametrize("fault", ["row", "path"])
def test_a_planted_fault_is_found(subject: Subject, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row taken for its neighbour's; a place whose own path is not what is committed."""
    take: Callable[..., None] = Continuations.take
    path: Callable[..., list[int]] = Continuations._path
    prompt, given_ones = list(job(20, 1).prompt), several(5, [40, 50, 60])
    alone = [subject.llm.score(prompt, [one])[0] for one in given_ones]
    if fault == "row":
        monkeypatch.setattr(Continuations, "take", lambda self, rows: take(self, np.roll(rows, 1, axis=0)))
    else:
        # The node's elder brother is committed in its place: as long a path, with another token.
        monkeypatch.setattr(
            Continuations, "_path", lambda self, above, node: [max(n - 1, 1) for n in path(self, above, node)]
        )
    try:
        found = subject.llm.score(prompt, given_ones, tenant=fault)
    except Exception:
        return  # so is one that ends in an error
    assert found != alone
