"""Same tokens whatever drafts, whoever is in the batch; other tokens for other seeds and samples."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from law.support import DRAFTERS, KINDS, Kind, decode, paced, registered, target_of
from paceline import LLM
from paceline.engine.engine import Engine
from paceline.engine.request import NO_HINTS, Drafter, Hints, Request
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter, ScriptedTarget

VOCAB = 5
PACINGS: dict[str, Callable[[ScriptedTarget], Engine]] = {
    "fixed": lambda target: Engine(target, FixedPacer(5), max_running=1024),
    "paced": paced,
}
PROMPTS = [(1, 3), (2,), (0, 4, 4, 1, 2, 0, 3), (3, 1, 3, 1, 3)]


def requests_of(kind: Kind, drafters: Sequence[Drafter] = (), hints: Sequence[Hints] = [NO_HINTS]) -> list[Request]:
    """Requests of odd lengths, prompts and seeds."""
    return [
        kind.request(
            VOCAB,
            5 + 7 * (i % 4),
            seed=1000 + i,
            sample=i % 3,
            prompt=PROMPTS[i % 4],
            drafters=drafters,
            hints=hints[i % len(hints)],
        )
        for i in range(11)
    ]


def predicted(outputs: Sequence[tuple[int, ...]]) -> list[Hints]:
    """What callers expect: the outputs, but for a token in the middle."""
    return [Hints(prediction=(*o[: len(o) // 2], VOCAB - 1, *o[len(o) // 2 + 1 :])) for o in outputs]


@cache
def plain_of(kind: str) -> list[tuple[int, ...]]:
    """Each request decoded alone."""
    target = target_of(VOCAB)
    return [decode(target, [request])[0] for request in requests_of(KINDS[kind])]


def by_turns() -> Iterator[tuple[str, str, str]]:
    """Each drafter with each kind without a pacer; with one, each of both with a third of the others."""
    for (i, name), (k, kind) in itertools.product(enumerate(DRAFTERS), enumerate(KINDS)):
        yield name, kind, "fixed"
        if (i + k) % 3 == 0:
            yield name, kind, "paced"


@pytest.mark.parametrize(("name", "kind", "pacing"), list(by_turns()))
def test_tokens_are_those_of_plain_decoding(name: str, kind: str, pacing: str) -> None:
    target, plain = target_of(VOCAB), plain_of(kind)
    engine, drafters, hints = PACINGS[pacing](target), [DRAFTERS[name](target)], predicted(plain)
    nobody_learns = pacing == "fixed" and isinstance(drafters[0], ScriptedDrafter)
    for _ in range(1 if nobody_learns else 2):  # the second time for those who learn from the first
        assert decode(target, requests_of(KINDS[kind], drafters, hints), engine=engine) == plain


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(0, 999), st.sampled_from([0.0, 0.5, 10.0]), st.integers(1, 64))
def test_tokens_depend_neither_on_drafters_that_disagree_nor_on_what_the_pacer_makes_of_them(
    kind: str, seed: int, max_slowdown: float, budget: int
) -> None:
    target = target_of(VOCAB)
    plain = decode(target, requests_of(KINDS[kind]))
    engine, drafters = paced(target, seed, max_slowdown, budget), [make(target) for make in DRAFTERS.values()]
    for _ in range(2):
        assert decode(target, requests_of(KINDS[kind], drafters, predicted(plain)), engine=engine) == plain


STOPS = {"idle", "no drafts", "rows would not pay", "guard", "all drafts taken"}
SEEN_IN = (("temperature 1", 10.0), ("regex", 10.0), ("top_p", 0.05), ("presence_penalty", 10.0))


def test_on_an_erratic_clock_the_pacer_does_everything_it_can() -> None:
    """Without predictions too, which leave no room for others."""
    target, said, stops = target_of(VOCAB), Counter[str](), Counter[str]()
    for kind, max_slowdown in SEEN_IN:
        for hints in (predicted(plain_of(kind)), [NO_HINTS]):
            engine = paced(target, max_slowdown=max_slowdown)
            drafters = [make(target) for make in registered().values()]
            for _ in range(9):
                requests = requests_of(KINDS[kind], drafters, hints)
                decode(target, requests, engine=engine)
                for request in requests:
                    said.update({name: d.num_draft_tokens for name, d in request.stats.drafters.items()})
                    stops.update(request.stats.pacing["stops"])
                if stops.keys() == STOPS and all(said[name] for name in registered()):
                    return
    raise AssertionError(f"never seen: {STOPS ^ stops.keys()}, {[name for name in registered() if not said[name]]}")


@pytest.mark.parametrize("pacing", PACINGS)
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
def test_tokens_do_not_depend_on_several_drafters_that_disagree(temperature: float, pacing: str) -> None:
    target, kind = target_of(VOCAB), Kind({**KINDS["all"].params, "temperature": temperature}, bad_words=((1, 4),))
    drafters = [make(target) for make in DRAFTERS.values()]
    plain = decode(target, requests_of(kind))
    engine = PACINGS[pacing](target)
    assert decode(target, requests_of(kind, drafters, predicted(plain)), engine=engine) == plain


@pytest.mark.parametrize("budget", [1, 2, 3, 6, 13])
def test_tokens_do_not_depend_on_the_budget(budget: int) -> None:
    target, kind = target_of(VOCAB), KINDS["frequency_penalty"]
    drafters = [ScriptedDrafter.adversarial(target, right=4)]
    assert decode(target, requests_of(kind, drafters), budget) == decode(target, requests_of(kind))


def test_tokens_do_not_depend_on_the_order_of_arrival() -> None:
    target, kind = target_of(VOCAB), KINDS["temperature 1"]
    drafters = [DRAFTERS["branching"](target)]
    assert decode(target, requests_of(kind, drafters)[::-1])[::-1] == decode(target, requests_of(kind))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("limits", [{"top_k": 4}, {"top_p": 0.9, "min_p": 0.02, "logit_bias": {2: 1.0}}], ids=str)
def test_fifty_tokens_and_fifty_more_are_the_hundred_at_once(temperature: float, limits: dict) -> None:
    target = target_of(VOCAB, seed=6)
    llm = LLM.from_target(target, tokenizer=None, drafters=[DRAFTERS["right then wrong"](target)])
    options = {"temperature": temperature, "seed": 12, **limits}
    whole = llm.generate([1, 2, 3], max_tokens=100, **options)
    first = llm.generate([1, 2, 3], max_tokens=50, **options)
    second = llm.generate([1, 2, 3, *first.token_ids], max_tokens=50, **options)
    assert whole.token_ids == first.token_ids + second.token_ids


def test_a_repetition_penalty_is_continued_too_since_it_counts_the_prompt() -> None:
    target = target_of(VOCAB, seed=6)
    llm = LLM.from_target(target, tokenizer=None, drafters="none")
    options = {"temperature": 1.0, "seed": 5, "repetition_penalty": 1.4}
    whole = llm.generate([1], max_tokens=33, **options)
    second = llm.generate([1, *whole.token_ids[:20]], max_tokens=13, **options)
    assert whole.token_ids[20:] == second.token_ids


def test_samples_of_one_prompt_differ_and_are_reproducible() -> None:
    target = target_of(VOCAB)
    llm = LLM.from_target(target, tokenizer=None, drafters=[DRAFTERS["branching"](target)])
    outputs = llm.generate([[1, 2]], max_tokens=24, temperature=1.0, seed=3, n=7)
    assert len({output.token_ids for output in outputs}) == 7
    again = llm.generate([[1, 2]], max_tokens=24, temperature=1.0, seed=3, n=3, drafters="none")
    assert [o.token_ids for o in again] == [o.token_ids for o in outputs[:3]]


def test_the_same_prompt_twice_in_a_batch_gives_the_same_tokens() -> None:
    llm = LLM.from_target(target_of(VOCAB), tokenizer=None)
    one, other, two = llm.generate([[1, 2], [3], [1, 2]], max_tokens=21, temperature=1.0, seed=3)
    assert one.token_ids == two.token_ids
    assert one.token_ids != other.token_ids


def test_a_seed_that_was_not_given_is_reported_and_repeats_the_output() -> None:
    llm = LLM.from_target(target_of(VOCAB), tokenizer=None)
    first, other = (llm.generate([1, 2], max_tokens=30, temperature=1.0) for _ in range(2))
    assert first.seed != other.seed
    assert first.token_ids != other.token_ids
    again = llm.generate([1, 2], max_tokens=30, temperature=1.0, seed=first.seed)
    assert again.token_ids == first.token_ids


def test_greedy_outputs_do_not_depend_on_the_seed() -> None:
    llm = LLM.from_target(target_of(VOCAB), tokenizer=None)
    outputs = [llm.generate([1, 2], max_tokens=20, seed=seed).token_ids for seed in (1, 2)]
    assert outputs[0] == outputs[1]
