"""Counters, what follows from them, and the identities between them."""

from __future__ import annotations

import json

import pytest

from law.support import DRAFTERS, Kind, check_counters, decode, target_of
from paceline import LLM
from paceline.engine.stats import Stats
from paceline.engine.tree import DraftTree
from paceline.testing import ScriptedDrafter

VOCAB = 5
RUNS = {
    "ends at the limit": Kind({"temperature": 1.0}),
    "ends at an end token": Kind({"temperature": 1.0}, eos=frozenset({3})),
    "greedy": Kind({"frequency_penalty": 1.5}),
}


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("name", ["perfect", "right then wrong", "branching", "adversarial"])
def test_counters_agree_with_the_steps_and_with_each_other(name: str, kind: str) -> None:
    target = target_of(VOCAB, seed=8)
    for seed in range(5):
        request = RUNS[kind].request(VOCAB, 29, seed=seed, drafters=[DRAFTERS[name](target)])
        outcomes = []
        decode(target, [request], 5, outcomes)
        check_counters(request, outcomes)


def test_a_perfect_drafter_emits_its_budget_and_one_more_in_every_step() -> None:
    target = target_of(VOCAB)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter.perfect(target)])
    stats = llm.generate([1], max_tokens=24).stats
    assert stats.acceptance_histogram == [0, 0, 0, 0, 0, 0, 0, 3]
    assert (stats.num_emitted_tokens, stats.num_accepted_draft_tokens, stats.num_steps) == (
        24,
        21,
        3,
    )
    assert (stats.mean_acceptance_length, stats.draft_acceptance_rate) == (8.0, 1.0)


def test_an_adversarial_drafter_emits_one_token_in_every_step() -> None:
    target = target_of(VOCAB)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter.adversarial(target)])
    stats = llm.generate([1], max_tokens=13).stats
    assert stats.acceptance_histogram == [13]
    assert (stats.mean_acceptance_length, stats.draft_acceptance_rate) == (1.0, 0.0)


def test_drafts_behind_a_rejection_are_not_evaluated() -> None:
    target = target_of(VOCAB)
    llm = LLM.from_target(target, None, drafters=[ScriptedDrafter.adversarial(target, right=2)])
    stats = llm.generate(
        [1], max_tokens=12
    ).stats  # 4 steps of two right drafts; in all but the last, which has no room, more follow
    assert (stats.num_spec_steps, stats.num_accepted_draft_tokens, stats.num_evaluated_drafts) == (4, 8, 11)
    assert stats.acceptance_rate == 8 / 11
    assert stats.draft_acceptance_rate == 8 / stats.num_draft_tokens < 8 / 11


def test_a_place_of_a_tree_is_evaluated_once_however_many_drafts_stand_there() -> None:
    target = target_of(VOCAB)
    every = DraftTree(tuple(range(VOCAB)), (-1,) * VOCAB, (0.2,) * VOCAB, ("scripted",) * VOCAB)
    stats = (
        LLM.from_target(target, None, drafters=[ScriptedDrafter(lambda request, budget: every)])
        .generate([1], max_tokens=8)
        .stats
    )
    assert (stats.num_spec_steps, stats.num_accepted_draft_tokens, stats.num_evaluated_drafts) == (4, 4, 4)
    assert (stats.acceptance_rate, stats.draft_acceptance_rate) == (1.0, 1 / VOCAB)


def test_plain_decoding_counts_no_drafts() -> None:
    stats = LLM.from_target(target_of(VOCAB), None, drafters="none").generate([1, 2, 3], max_tokens=11).stats
    assert (stats.num_prompt_tokens, stats.num_emitted_tokens, stats.num_steps) == (3, 11, 11)
    assert (stats.num_draft_tokens, stats.drafters) == (0, {})


def test_accepted_tokens_are_credited_to_the_drafter_that_proposed_them() -> None:
    stats = Stats()
    stats.observe(["a", "a", "b", "b"], ["a", "b"], 3, 2)
    stats.observe(["b"], [], 1, 1)
    assert (stats.drafters["a"].num_draft_tokens, stats.drafters["a"].num_accepted_draft_tokens) == (2, 1)
    assert (stats.drafters["b"].num_draft_tokens, stats.drafters["b"].num_accepted_draft_tokens) == (3, 1)
    assert stats.as_dict()["acceptance_histogram"] == [1, 0, 1]


def test_nothing_is_divided_by_zero_before_the_first_step() -> None:
    stats = Stats()
    assert (stats.mean_acceptance_length, stats.draft_acceptance_rate, stats.tokens_per_second) == (0, 0, 0)
    assert stats.acceptance_rate == 0
    assert stats.as_dict()["acceptance_histogram"] == []


def test_the_public_form_is_json_with_vllms_names() -> None:
    public = json.loads(
        json.dumps(LLM.from_target(target_of(VOCAB), None).generate([1, 2], max_tokens=9).stats.as_dict())
    )
    assert public["num_emitted_tokens"] == 9
    assert {
        "num_draft_tokens",
        "num_accepted_draft_tokens",
        "mean_acceptance_length",
        "draft_acceptance_rate",
        "acceptance_histogram",
    } <= public.keys()


def test_the_forward_is_part_of_the_decoding_time() -> None:
    stats = LLM.from_target(target_of(VOCAB), None).generate([1, 2], max_tokens=9).stats
    assert 0 < stats.forward_seconds < stats.decode_seconds
    assert stats.tokens_per_second == pytest.approx(9 / stats.decode_seconds)
