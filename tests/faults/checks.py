"""Named checks: each states a fact about a small run and raises `AssertionError` where it does not hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import numpy as np

from law.reference import SPELLED, chi_square, enumerate_outputs, pattern_of, reference_scores
from law.support import (
    DRAFTERS,
    KINDS,
    Kind,
    RecordingLaw,
    branching,
    check_counters,
    decode,
    registered,
    target_of,
)
from paceline import LLM
from paceline.engine.request import Drafter, Hints, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.params import SamplingParams
from paceline.sampling.noise import Noise
from paceline.testing import ScriptedDrafter, ScriptedTarget
from paceline.text.stream import TextStream

VOCAB = 5
Check = Callable[[], None]
CHECKS: dict[str, Check] = {}


def named(check: Check) -> Check:
    """Enters a check under the name of its function."""
    CHECKS[check.__name__] = check
    return check


def mixed_requests(drafters=()) -> list[Request]:
    """Requests of several kinds, lengths and seeds."""
    names = ("temperature 1", "frequency_penalty", "eos", "all", "repetition_penalty", "choice without EOS")
    names += ("regex",) * 4
    kinds = [KINDS[name] for name in names]
    return [
        kind.request(VOCAB, 17 + 5 * i, seed=70 + i, sample=i % 2, drafters=drafters) for i, kind in enumerate(kinds)
    ]


@named
def tokens_are_those_of_plain_decoding() -> None:
    target = target_of(VOCAB)
    plain = [decode(target, [request])[0] for request in mixed_requests()]
    for name in ("perfect", "right then wrong", "branching"):
        assert decode(target, mixed_requests([DRAFTERS[name](target)])) == plain


@named
def outputs_follow_the_exact_law() -> None:
    """Fails with probability 1e-6 without a fault, were the seeds not fixed."""
    target, kind = target_of(VOCAB), KINDS["temperature 1"]
    drafter = branching(target)
    outputs = decode(target, [kind.request(VOCAB, 3, seed=s, drafters=[drafter]) for s in range(600)])
    assert chi_square(outputs, enumerate_outputs(kind, target.logits, 3)) > 1e-6


@named
def scores_inside_drafts_see_the_exact_history() -> None:
    kind = Kind({"temperature": 1.0, "repetition_penalty": 1.5, "presence_penalty": 0.5})
    target = target_of(VOCAB)
    [answer] = decode(target, [kind.request(VOCAB, 23)])
    drafter = ScriptedDrafter(lambda request, budget: answer[request.num_output_tokens :])
    request = kind.request(VOCAB, 23, drafters=[drafter], law=RecordingLaw)
    [output] = decode(target, [request])
    for place, (row, scores) in enumerate(request.sampler.records[: len(output)]):
        expected = reference_scores(kind, kind.prompt, output[:place], row)
        np.testing.assert_allclose(scores, expected, rtol=1e-12)


@named
def the_targets_cache_holds_what_was_committed() -> None:
    """`ScriptedTarget` raises where it does not."""
    target = target_of(VOCAB)
    for name in ("right then wrong", "branching", "adversarial", "perfect"):
        decode(target, mixed_requests([DRAFTERS[name](target)]))


@named
def a_forward_has_no_more_rows_than_it_may() -> None:
    target = target_of(VOCAB, max_rows=6)
    decode(
        target,
        [Kind({}).request(VOCAB, 9, drafters=[ScriptedDrafter(lambda r, b: [r.seed] * b)] * 2)],
        budget=5,
    )
    greedy_trees = ScriptedDrafter(lambda request, budget: list(range(budget)))
    other = ScriptedDrafter(lambda request, budget: list(range(1, budget + 1)))
    decode(target, [Kind({}).request(VOCAB, 9, drafters=[greedy_trees, other])], budget=4)
    for drafter in (greedy_trees, other):
        assert max(len(outcome.tree) for outcome in drafter.outcomes) == 4


@named
def no_draft_is_bought_for_the_last_token() -> None:
    target = target_of(VOCAB)
    outcomes = []
    decode(target, [Kind({}).request(VOCAB, 9, drafters=[ScriptedDrafter.adversarial(target)])], outcomes=outcomes)
    assert [len(outcome.tree) > 0 for outcome in outcomes] == [True] * 8 + [False]


@named
def a_run_to_the_limit_cuts_nothing() -> None:
    """Every accepted draft and one token more per step are emitted: no draft is bought that cannot count."""
    target = target_of(VOCAB)
    for name in ("perfect", "right then wrong", "branching"):
        request = Kind({"temperature": 1.0}).request(VOCAB, 28, drafters=[DRAFTERS[name](target)])
        [output] = decode(target, [request])
        assert len(output) == request.stats.num_accepted_draft_tokens + request.stats.num_steps


@named
def nothing_follows_the_end() -> None:
    target = target_of(VOCAB)
    kind = Kind({"temperature": 1.0, "stop_token_ids": [2]}, eos=frozenset({0}))
    drafters = [DRAFTERS["perfect"](target)]
    for output in decode(target, [kind.request(VOCAB, 4, seed=seed, drafters=drafters) for seed in range(20)]):
        assert len(output) <= 4
        assert not {0, 2} & set(output[:-1])
        assert len(output) == 4 or output[-1] in (0, 2)


@named
def text_ends_before_a_stop_string() -> None:
    params = SamplingParams(max_tokens=31, temperature=1.0, stop=["db"])
    target = target_of(VOCAB, seed=1)
    for seed in range(20):
        kind = Kind({"temperature": 1.0})
        law = kind.request(VOCAB, 31, seed=seed).sampler
        law.params = params
        text = TextStream(lambda ids: "".join("abcde"[i] for i in ids), [1, 3], params.stop)
        request = Request([1, 3], law, text, frozenset(), [DRAFTERS["perfect"](target)], seed)
        [output] = decode(target, [request])
        spelled = "".join("abcde"[i] for i in output)
        assert spelled == request.text + ("db" if request.finish_reason == "stop" else "")
        assert "db" not in spelled[:-2]
        assert request.finish_reason == "stop" or len(output) == 31


@named
def a_failing_drafter_changes_nothing() -> None:
    asked = []

    def script(request, budget):
        asked.append(request.id)
        raise RuntimeError("no drafts today")

    target = target_of(VOCAB)
    plain = decode(target, mixed_requests())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            output = decode(target, mixed_requests([ScriptedDrafter(script)]))
        except RuntimeError as error:
            raise AssertionError("a drafter killed a request") from error
    assert output == plain
    assert len(asked) == 1
    assert len(warned) == len(plain)


@named
def counters_agree_with_each_other() -> None:
    target = target_of(VOCAB)
    for name in ("perfect", "right then wrong", "branching"):
        for request in mixed_requests([DRAFTERS[name](target)]):
            outcomes = []
            decode(target, [request], outcomes=outcomes)
            check_counters(request, outcomes)
            drafted = sum(token.source != "target" for token in request.outbox)
            assert request.stats.num_accepted_draft_tokens == drafted


@named
def outputs_follow_their_grammar() -> None:
    target = target_of(VOCAB)
    for kind in (KINDS["regex"], KINDS["choice without EOS"]):
        for name in ("perfect", "right then wrong", "branching"):
            for seed in range(10):
                request = kind.request(VOCAB, 60, seed=seed, drafters=[DRAFTERS[name](target)])
                [output] = decode(target, [request])
                assert request.finish_reason == "stop"
                text = "".join(SPELLED[token] for token in output if token not in kind.eos)
                assert re.fullmatch(pattern_of(kind) or "", text)


@named
def samples_and_seeds_differ() -> None:
    target, kind = target_of(VOCAB), KINDS["temperature 1"]
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len(set(decode(target, [kind.request(VOCAB, 20, seed=s, sample=i) for s, i in places]))) == 4


@named
def a_continuation_says_what_the_whole_says() -> None:
    llm = LLM.from_target(target_of(VOCAB), None, drafters="none")
    whole = llm.generate([1, 2], max_tokens=40, temperature=1.0, seed=3).token_ids
    second = llm.generate([1, 2, *whole[:15]], max_tokens=25, temperature=1.0, seed=3).token_ids
    assert whole[15:] == second


@named
def every_parameter_acts_inside_drafts() -> None:
    target = target_of(VOCAB)
    for name in ("top_k", "top_p", "min_p", "logit_bias", "bad_words", "min_tokens"):
        kind = KINDS[name]
        plain = decode(target, [kind.request(VOCAB, 25, seed=seed) for seed in range(5)])
        drafters = [DRAFTERS["right then wrong"](target)]
        assert decode(target, [kind.request(VOCAB, 25, seed=seed, drafters=drafters) for seed in range(5)]) == plain


@named
def no_tenants_text_drafts_for_another() -> None:
    target, kind = target_of(VOCAB), KINDS["temperature 0.6"]

    def drafts_of(drafter: Drafter, tenant: str, seed: int) -> list[DraftTree]:
        outcomes: list[StepOutcome] = []
        hints = Hints(tenant=tenant)
        decode(target, [kind.request(VOCAB, 20, seed=seed, drafters=[drafter], hints=hints)], outcomes=outcomes)
        return [outcome.tree for outcome in outcomes]

    for make in registered().values():
        told, alone = make(target), make(target)
        for drafter in (told, alone):
            drafts_of(drafter, "bob", 1)
        for seed in range(2, 5):
            drafts_of(told, "ann", seed)
        assert drafts_of(told, "bob", 5) == drafts_of(alone, "bob", 5)


@named
def noise_is_finite_and_has_no_ties() -> None:
    drawn = np.concatenate([Noise(7, 0, 50_000).at(position) for position in range(6)])
    assert np.isfinite(drawn).all()
    assert len(np.unique(drawn)) == len(drawn)


@named
def a_neighbour_in_the_batch_changes_nothing() -> None:
    target: ScriptedTarget = target_of(VOCAB)
    drafters = [branching(target)]
    alone = [decode(target, [request])[0] for request in mixed_requests(drafters)]
    assert decode(target, mixed_requests(drafters)) == alone
