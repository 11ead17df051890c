"""`stop_when`: an output ends where a rule says so, and is the same up to there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paceline
from paceline.engine.request import Token
from paceline.engine.stopping import HIGH, LOW, MIN_TOKENS, WINDOW, Stop, Stopped, Watch, uncertain
from paceline.errors import ConfigError, RequestError
from paceline.pacing import FixedPacer

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def llm() -> Iterator[paceline.LLM]:
    with paceline.LLM() as llm:
        yield llm


def token(entropy: float) -> Token:
    return Token(0, "x", "target", 0.0, entropy)


def first_area(entropies: Sequence[float]) -> int | None:
    """Tokens up to and including the one where the rule first holds, written out: no token behind it is looked at."""
    near = [entropies[max(i - 2, 0) : i + 1] for i in range(len(entropies))]
    levels = [sum(some) / len(some) for some in near]
    for end in range(1, len(levels) + 1):
        start = max((i + 1 for i in range(end) if levels[i] < LOW), default=0)
        if end - start >= MIN_TOKENS and max(levels[start:end]) >= HIGH:
            return end
    return None


@given(st.lists(st.sampled_from([0.0, 0.2, 0.7, 0.8, 1.3, 1.6, 3.0]), max_size=40))
@settings(max_examples=200)
def test_it_stops_where_an_area_is_complete(entropies: list[float]) -> None:
    watch = Watch(uncertain)
    found = next((s for s in (watch.see(token(e), True) for e in entropies) if s is not None), None)
    assert (None if found is None else found.end) == first_area(entropies)
    if found is not None:
        assert found.end - found.start >= MIN_TOKENS
        assert f"{max(entropies[found.start : found.end]):.1f} at most" in found.reason


def test_a_rule_sees_the_last_tokens_and_no_more() -> None:
    seen: list[int] = []
    watch = Watch(lambda tokens: seen.append(len(tokens)))  # type: ignore[func-returns-value]
    for _ in range(WINDOW + 9):
        assert watch.see(token(0.0), True) is None
    assert seen == [*range(1, WINDOW + 1), *[WINDOW] * 9]


@pytest.mark.parametrize(
    ("said", "stopped"),
    [
        (True, Stopped(4, 5, "stop_when")),
        ("enough", Stopped(4, 5, "enough")),
        (Stop("a run", 3), Stopped(2, 5, "a run")),
        (Stop("all", 99), Stopped(0, 5, "all")),
        (False, None),
        (None, None),
    ],
)
def test_what_a_rule_may_say(said: object, stopped: Stopped | None) -> None:
    watch = Watch(lambda tokens: said if len(tokens) == 5 else None)  # type: ignore[arg-type,return-value]
    assert [watch.see(token(0.0), True) for _ in range(5)] == [*[None] * 4, stopped]
    with pytest.raises(RequestError, match=r"it returned 7; allowed: a Stop, a string"):
        Watch(lambda tokens: 7).see(token(0.0), True)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_nothing_changes_before_the_stop(llm: paceline.LLM, temperature: float) -> None:
    options = {"max_tokens": 70, "temperature": temperature, "seed": 3, "ignore_eos": True}
    whole = llm.generate(PROMPT, **options)
    cut = llm.generate(PROMPT, **options, stop_when="uncertain")
    entropies = [one.entropy for one in whole.tokens]
    end = first_area(entropies)
    assert end is not None
    assert end < 70
    assert cut.token_ids == whole.token_ids[:end]
    assert whole.text.startswith(cut.text)
    assert (cut.finish_reason, cut.stop_reason) == ("stop", "uncertain")
    assert cut.stopped is not None
    assert cut.stopped.end == end
    assert whole.stopped is None


def test_a_stop_within_accepted_drafts_cuts_there(llm: paceline.LLM) -> None:
    options = {"max_tokens": 40, "ignore_eos": True}
    whole = llm.generate(PROMPT, **options)

    def seventeen(tokens: Sequence[Token]) -> bool:
        return len(tokens) == 17

    pacer = FixedPacer()
    cut = llm.generate(PROMPT, **options, stop_when=seventeen, prediction=whole.text, pacer=pacer)
    assert cut.token_ids == whole.token_ids[:17]
    assert cut.stats.num_steps < 10  # most of them were drafts
    assert cut.stop_reason == "stop_when"


def test_no_stop_before_min_tokens_and_none_in_place_of_an_end(llm: paceline.LLM) -> None:
    late = llm.generate(PROMPT, max_tokens=30, min_tokens=12, ignore_eos=True, stop_when=lambda tokens: True)
    assert len(late.token_ids) == 13
    ended = llm.generate(PROMPT, max_tokens=30, stop="little", stop_when=lambda tokens: "little" in tokens[-1].text)
    assert (ended.stop_reason, ended.stopped) == ("little", None)
    limited = llm.generate(PROMPT, max_tokens=5, stop_when=lambda tokens: len(tokens) == 5)
    assert (limited.finish_reason, limited.stop_reason) == ("length", None)


def fail(tokens: Sequence[Token]) -> bool:
    return tokens[0].logprob / 0 > 1


def test_a_rule_that_fails_ends_its_own_request_alone(llm: paceline.LLM) -> None:
    with pytest.raises(RequestError, match=r"stop_when failed: ZeroDivisionError"):
        llm.generate(PROMPT, max_tokens=9, stop_when=fail)
    assert len(llm.generate(PROMPT, max_tokens=9).token_ids) == 9
    for nonsense in ("sure", 3, 0.5):
        with pytest.raises(ConfigError, match=r"stop_when is .*; allowed: 'uncertain', or a function"):
            llm.generate(PROMPT, stop_when=nonsense)  # type: ignore[arg-type]
