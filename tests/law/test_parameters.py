"""Each sampling parameter, at every position inside drafts, against transformers' own processors.

Semantics are vLLM's where the two differ; each such place has a test of its own below.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, NoBadWordsLogitsProcessor, TopPLogitsWarper

from law.reference import reference_scores
from law.support import Kind, RecordingLaw, decode, target_of
from paceline import LLM, RequestError
from paceline.params import SamplingParams
from paceline.sampling.logprobs import prompt_logprobs
from paceline.sampling.sampler import Sampler, SamplerContext, truncate
from paceline.testing import ScriptedDrafter

VOCAB = 37
FORBIDDEN = float("-inf")
NEVER = frozenset({36})  # an end that the bias below forbids, so that outputs run to their limit
BIAS = {36: FORBIDDEN}

POSITION_KINDS = {
    "greedy": Kind({}),
    "temperature": Kind({"temperature": 0.37}),
    "top_k": Kind({"temperature": 0.9, "top_k": 5}),
    "top_p": Kind({"temperature": 1.1, "top_p": 0.77}),
    "min_p": Kind({"temperature": 1.1, "min_p": 0.13}),
    "repetition_penalty": Kind({"temperature": 1.0, "repetition_penalty": 1.9}),
    "repetition_penalty below 1": Kind({"temperature": 0.5, "repetition_penalty": 0.8}),
    "presence_penalty": Kind({"temperature": 0.8, "presence_penalty": 1.5}),
    "frequency_penalty": Kind({"temperature": 0.8, "frequency_penalty": 0.75}),
    "greedy with penalties": Kind({"repetition_penalty": 1.3, "frequency_penalty": 0.5}),
    "logit_bias": Kind({"temperature": 0.8, "logit_bias": {3: 2.5, 9: -4.0, 11: FORBIDDEN}}),
    "bad_words": Kind({"temperature": 0.5}, bad_words=((7,), *((a, b) for a in range(20) for b in range(15)))),
    "allowed_token_ids": Kind(
        {"temperature": 0.9, "allowed_token_ids": [*range(3, 24, 2), 0], "min_p": 0.05, "logit_bias": {3: 2.0, 4: 9.0}}
    ),
    "min_tokens": Kind({"temperature": 1.0, "min_tokens": 31, "stop_token_ids": [4]}, eos=frozenset({2, 30})),
    "all": Kind(
        {
            "temperature": 1.2,
            "top_k": 17,
            "top_p": 0.9,
            "min_p": 0.02,
            "repetition_penalty": 1.15,
            "presence_penalty": 0.3,
            "frequency_penalty": 0.2,
            "logit_bias": {3: 1.5, **BIAS},
            "min_tokens": 12,
            "stop_token_ids": [36],
            "allowed_token_ids": [*range(1, 35), 36],
        },
        eos=NEVER,
        bad_words=((5,), (3, 8), (1, 2, 6)),
    ),
}


def mostly_right(answer: tuple[int, ...]) -> ScriptedDrafter:
    """Drafts the known answer, with a wrong token at every eleventh place."""
    drafted = [(t + 1) % VOCAB if i % 11 == 10 else t for i, t in enumerate(answer)]
    return ScriptedDrafter(lambda request, budget: drafted[request.num_output_tokens :])


@pytest.mark.parametrize("name", POSITION_KINDS)
def test_scores_inside_drafts_are_those_of_the_processors_on_the_exact_history(name: str) -> None:
    kind = POSITION_KINDS[name]
    target = target_of(VOCAB, seed=5)
    prompt = [6, 1, 30, 6]
    [answer] = decode(target, [kind.request(VOCAB, 53, seed=9, prompt=prompt)])
    drafter = mostly_right(answer)
    request = kind.request(VOCAB, 53, seed=9, prompt=prompt, drafters=[drafter], law=RecordingLaw)
    assert decode(target, [request]) == [answer]
    assert len(answer) > 25
    assert max(len(outcome.path) for outcome in drafter.outcomes) >= 5  # deep inside drafts, that is
    for place, (row, scores) in enumerate(request.sampler.records[: len(answer)]):
        expected = reference_scores(kind, prompt, answer[:place], row)
        np.testing.assert_array_equal(np.isneginf(scores), np.isneginf(expected))
        np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)


def test_top_k_keeps_every_token_that_ties_with_the_last() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.0, 2.0, 0.5])
    kept = np.flatnonzero(truncate(scores, top_k=2, top_p=1.0, min_p=0.0) > FORBIDDEN)
    assert kept.tolist() == [1, 2, 3, 4]


def test_top_p_breaks_ties_by_the_lower_id() -> None:
    scores = np.log([0.2, 0.3, 0.2, 0.3])
    kept = np.flatnonzero(truncate(scores, top_k=0, top_p=0.7, min_p=0.0) > FORBIDDEN)
    assert kept.tolist() == [0, 1, 3]


def test_top_p_keeps_no_more_than_it_takes_to_reach_it() -> None:
    kept = np.flatnonzero(truncate(np.zeros(4), top_k=0, top_p=0.5, min_p=0.0) > FORBIDDEN)
    assert kept.tolist() == [0, 1]


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(1, 1.0, 0.0), (0, 1e-300, 0.0), (0, 1.0, 1.0)])
def test_the_likeliest_token_survives_the_harshest_truncation(top_k: int, top_p: float, min_p: float) -> None:
    scores = np.random.default_rng(3).normal(size=23)
    kept = np.flatnonzero(truncate(scores, top_k, top_p, min_p) > FORBIDDEN)
    assert kept.tolist() == [scores.argmax()]


def test_min_p_acts_before_top_p_as_in_vllm_and_unlike_transformers() -> None:
    scores = np.log([0.5, 0.2, 0.2, 0.1])
    kept = np.flatnonzero(truncate(scores, top_k=0, top_p=0.71, min_p=0.3) > FORBIDDEN)
    assert kept.tolist() == [0, 1]  # once min-p has dropped 0.1, 0.5 and 0.2 have 0.78 of the mass

    row = torch.tensor(scores)[None]
    transformers = MinPLogitsWarper(0.3)(None, TopPLogitsWarper(0.71)(None, row))
    assert (transformers > FORBIDDEN).sum() == 3


def law(prompt, **params) -> Sampler:
    return Sampler(SamplingParams(**params), SamplerContext(6), prompt, seed=0)


def test_presence_and_frequency_penalties_count_generated_tokens_only() -> None:
    law_ = law([2, 2, 5], presence_penalty=1.0, frequency_penalty=0.25)
    for token in (1, 1, 5):
        law_.advance(token)
    assert law_.process(np.zeros(6)).tolist() == [0, -1.5, 0, 0, 0, -1.25]


def test_repetition_penalty_counts_prompt_and_generated_tokens_once() -> None:
    law_ = law([2, 2], repetition_penalty=2.0)
    law_.advance(4)
    assert law_.process(np.array([1.0, 1, 1, 1, -1, -1])).tolist() == [1, 1, 0.5, 1, -2, -1]


def test_a_bad_word_that_begins_in_the_prompt_is_not_looked_for_as_in_vllm_and_unlike_transformers() -> None:
    context = SamplerContext(6, bad_word_ids=((3, 4),))
    law_ = Sampler(SamplingParams(), context, [1, 3], seed=0)
    assert law_.process(np.zeros(6))[4] == 0
    law_.advance(3)
    assert law_.process(np.zeros(6))[4] == FORBIDDEN

    prompt = torch.tensor([[1, 3]])
    assert NoBadWordsLogitsProcessor([[3, 4]])(prompt, torch.zeros(1, 6))[0, 4] == FORBIDDEN


def test_a_temperature_below_a_hundred_thousandth_is_greedy() -> None:
    params = SamplingParams(temperature=9e-6)
    chosen = {Sampler(params, SamplerContext(6), [1], seed).sample(np.arange(6.0)).token for seed in range(20)}
    assert params.is_greedy
    assert chosen == {5}


def test_the_bias_can_lift_a_token_over_all_others_and_forbid_the_likeliest() -> None:
    row = np.array([0.0, 1, 2, 3, 4, 5], np.float32)
    assert law([1], logit_bias={2: 50.0}).sample(row).token == 2
    assert law([1], logit_bias={5: FORBIDDEN}).sample(row).token == 4


def test_reported_logprobs_and_entropy_are_the_models_own_before_any_parameter() -> None:
    target = target_of(11, seed=2)
    llm = LLM.from_target(target, tokenizer=None, drafters=[ScriptedDrafter.perfect(target)])
    prompt = [4, 9, 1]
    how = {"temperature": 0.4, "top_k": 2, "presence_penalty": 2.0, "logit_bias": {0: 30.0}}
    output = llm.generate(prompt, max_tokens=13, seed=1, logprobs=4, **how)
    for place, token in enumerate(output.tokens):
        logits = target.logits([*prompt, *output.token_ids[:place]])
        logprobs = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), 0)
        best = torch.topk(logprobs, 4)
        assert token.logprob == pytest.approx(logprobs[token.id].item(), abs=1e-12)
        assert token.entropy == pytest.approx(-(logprobs.exp() * logprobs).sum().item(), abs=1e-12)
        assert [t for t, _ in token.top] == best.indices.tolist()
        assert [p for _, p in token.top] == pytest.approx(best.values.tolist(), abs=1e-12)


def test_entropy_and_logprobs_are_finite_over_logits_that_forbid_tokens() -> None:
    choice = law([1], logprobs=2).sample(np.array([0, FORBIDDEN, 0, FORBIDDEN, 0, 0], np.float32))
    assert choice.entropy == pytest.approx(np.log(4))
    assert choice.logprob == pytest.approx(-np.log(4))
    assert choice.top == ((0, choice.logprob), (2, choice.logprob))


def masked_rows(seed: int) -> tuple[np.ndarray, Sampler]:
    """A row of logits, some of them -inf, and a law with parameters drawn at random, all of them acting."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(3, 90))
    row = rng.normal(scale=4, size=size).astype(np.float32)
    row[rng.permutation(size)[: int(rng.integers(1, size))]] = FORBIDDEN
    known = np.flatnonzero(row > FORBIDDEN)
    params = SamplingParams(
        logprobs=min(20, size),
        temperature=float(rng.choice([0.0, 0.7, 1.0])),
        top_p=float(rng.choice([1.0, 0.6])),
        min_p=float(rng.choice([0.0, 0.1])),
        top_k=int(rng.integers(0, 30)),
        repetition_penalty=float(rng.choice([0.5, 1.0, 2.0])),
        frequency_penalty=float(rng.choice([0.0, 1.5])),
        logit_bias={int(rng.integers(size)): FORBIDDEN, int(known[0]): 3.0},
        allowed_token_ids=[int(known[0]), *rng.integers(0, size, 9).tolist()],
    )
    return row, Sampler(params, SamplerContext(size), rng.integers(0, size, 7).tolist(), seed)


def test_what_is_reported_is_never_nan_wherever_the_model_says_minus_infinity() -> None:
    seen = 0
    for seed in range(200):
        row, law_ = masked_rows(seed)
        for _ in range(3):
            choice = law_.sample(row)
            values = [choice.logprob, choice.entropy, choice.margin, choice.logit, *(p for _, p in choice.top)]
            assert not np.isnan(values).any(), (seed, choice)
            assert row[choice.token] > FORBIDDEN
            assert [p for _, p in choice.top] == sorted((p for _, p in choice.top), reverse=True)
            seen += choice.top[-1][1] == FORBIDDEN
            law_.advance(choice.token)
    assert seen > 100  # there were tokens of -inf among the likeliest twenty


def test_no_token_but_those_allowed_is_ever_generated_and_what_forbids_all_is_said() -> None:
    law_ = law([1], allowed_token_ids=[2, 4, 4])
    assert law_.process(np.arange(6.0)).tolist() == [FORBIDDEN, FORBIDDEN, 2, FORBIDDEN, 4, FORBIDDEN]
    with pytest.raises(RequestError, match=r"every token is forbidden at position 1: allowed_token_ids, bad_words"):
        law([1], allowed_token_ids=[2], logit_bias={2: FORBIDDEN}).sample(np.zeros(6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prompt_logprobs_are_the_log_softmax_the_rank_and_the_likeliest(dtype) -> None:
    rng = np.random.default_rng(8)
    rows = np.round(rng.normal(scale=3, size=(23, 41)), 1).astype(dtype)  # with ties
    rows[::3, ::5] = FORBIDDEN
    tokens = rng.integers(0, 41, 23).tolist()
    found = prompt_logprobs(rows, tokens, 7)
    logprobs = torch.log_softmax(torch.tensor(rows, dtype=torch.float64), 1)
    for place, (token, entry) in enumerate(zip(tokens, found, strict=True)):
        row = logprobs[place]
        assert entry.logprob == pytest.approx(row[token].item(), abs=1e-12)
        assert entry.rank == (row >= row[token]).sum()  # as vLLM counts: a tie is before it
        assert [t for t, _ in entry.top] == sorted(range(41), key=lambda t: (-rows[place, t], t))[:7]
        assert [p for _, p in entry.top] == pytest.approx([row[t].item() for t, _ in entry.top], abs=1e-12)
    assert [entry.top for entry in prompt_logprobs(rows, tokens, 0)] == [()] * 23
