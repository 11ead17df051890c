"""The facade as a user types it: parameters as an object, drafters that join, one line a result, and the end of it."""

from __future__ import annotations

import copy
import pickle
import re
import time

import numpy as np
import pytest

from paceline import LLM, ConfigError, ContextLengthError, RequestError, SamplingParams, StateError
from paceline.engine.request import NO_TERMS, Request, Terms
from paceline.engine.tree import MAX_DEPTH
from paceline.options import Call, Options, read_call
from paceline.testing import ScriptedDrafter, ScriptedTarget
from unit.stepped import SteppedTarget


def counting() -> LLM:
    target = ScriptedTarget(lambda history: np.eye(7)[(history[-1] + 1) % 7] * 9, vocab_size=7)
    return LLM.from_target(target, None)


def test_parameters_come_second_and_keywords_override_them() -> None:
    llm, params = counting(), SamplingParams(max_tokens=3, seed=5)
    assert llm.generate([1], params).token_ids == (2, 3, 4)
    out = llm.generate([1], params, max_tokens=5)
    assert (out.token_ids, out.seed) == ((2, 3, 4, 5, 6), 5)
    assert [token.id for token in llm.stream([1], params, max_tokens=2)] == [2, 3]
    assert len(llm.generate([1], None, max_tokens=4).token_ids) == 4


@pytest.mark.parametrize("params", [{"max_tokens": 3}, 0.8, "greedy"])
def test_anything_else_in_their_place_is_refused_in_words(params) -> None:
    for call in (counting().generate, counting().stream):
        with pytest.raises(ConfigError, match=r"sampling_params is .*; allowed: a SamplingParams"):
            call([1], params)


def asked(llm: LLM, drafters) -> list[str]:
    return [drafter.name for drafter in llm._runtime.resolve(drafters)]


def test_named_drafters_join_the_automatic_ones() -> None:
    llm = counting()
    automatic = asked(llm, "auto")
    own = ScriptedDrafter(lambda request, budget: [])
    assert automatic
    assert asked(llm, ["auto"]) == automatic
    assert asked(llm, ["auto", own]) == [*automatic, own.name] == asked(llm, [own, "auto"])
    assert sorted(asked(llm, ["auto", automatic[0]])) == automatic  # named twice, asked once
    assert asked(llm, []) == asked(llm, "none") == []


def test_none_beside_others_is_refused() -> None:
    with pytest.raises(ConfigError, match="'none' beside others"):
        counting().generate([1], drafters=["none", "auto"])


def test_an_output_is_one_line() -> None:
    out = counting().generate([1], max_tokens=61, drafters="none")
    assert repr(out) == "Output('', 61 tokens, length, 1.00 tokens/step)"


def test_a_long_text_is_shown_by_its_end(bundled: LLM) -> None:
    out = bundled.generate("Once upon a time", max_tokens=60)
    shown = repr(out)
    assert len(shown) < 110
    assert repr("…" + out.text[-39:]) in shown


def test_a_closed_llm_says_so() -> None:
    target = SteppedTarget()
    llm = LLM.from_target(target, None, drafters="none")
    stream = llm.stream([1], max_tokens=9)
    target.let()
    next(stream)
    target.waits.wait(60)
    target.let()
    llm.close()
    llm.close()
    with pytest.raises(StateError, match="this LLM was closed while it decoded the request"):
        list(stream)
    for call in (lambda: llm.generate([1]), lambda: llm.stream([1]), lambda: llm.encode([1]), lambda: llm.target):
        with pytest.raises(StateError, match="this LLM is closed"):
            call()
    assert target.num_held == 0


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copying_is_refused_in_words(make) -> None:
    with pytest.raises(TypeError, match="an LLM holds native memory and cannot be copied or pickled"):
        make(counting())


# The options of a call


def requested(llm: LLM, prompt, **options) -> Request:
    call = read_call(None, options)
    return llm._runtime.request(prompt, call)


BAD_OPTIONS = [
    ("deadline_ms", 0, "a number of milliseconds above 0, up to a day"),
    ("deadline_ms", -1.5, "a number of milliseconds above 0, up to a day"),
    ("deadline_ms", float("nan"), "a number of milliseconds above 0, up to a day"),
    ("deadline_ms", float("inf"), "a number of milliseconds above 0, up to a day"),
    ("deadline_ms", "5", "a number of milliseconds above 0, up to a day"),
    ("num_speculative_tokens", -1, f"an integer from 0 to {MAX_DEPTH}"),
    ("num_speculative_tokens", MAX_DEPTH + 1, f"an integer from 0 to {MAX_DEPTH}"),
    ("num_speculative_tokens", True, f"an integer from 0 to {MAX_DEPTH}"),
    ("truncate_prompt_tokens", 0, "an integer at least 1"),
    ("add_special_tokens", 1, "True or False"),
    ("add_special_tokens", None, "True or False"),
    ("tenant", None, "a string"),
    ("tenant", 3, "a string"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_OPTIONS, ids=[f"{n}={v}" for n, v, _ in BAD_OPTIONS])
def test_a_bad_option_is_refused_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{name} is {value!r}; allowed: {allowed}')}$"):
        counting().generate([1], **{name: value})


def test_every_option_of_a_call_is_read() -> None:
    call = read_call(
        None, {name: None for name in Options.__annotations__ if name not in ("tenant", "add_special_tokens")}
    )
    assert call == Call(SamplingParams(max_tokens=None))
    assert call.terms == NO_TERMS


def test_a_deadline_is_a_moment_of_the_engines_clock_counted_from_the_call() -> None:
    before = time.perf_counter()
    terms = read_call(None, {"deadline_ms": np.float32(250), "num_speculative_tokens": np.int8(3)}).terms
    assert before + 0.25 <= terms.deadline <= time.perf_counter() + 0.25
    assert terms.num_speculative_tokens == 3
    assert requested(counting(), [1], num_speculative_tokens=0).terms == Terms(None, 0)


@pytest.mark.parametrize("count", [1, 3, 5, 99])
def test_a_prompt_is_cut_to_its_last_tokens(count: int) -> None:
    prompt = [1, 2, 3, 4, 5]
    out = counting().generate(prompt, truncate_prompt_tokens=count, max_tokens=2)
    assert out.origin.prompt_token_ids == tuple(prompt[-count:])
    assert (out.token_ids, out.stats.num_prompt_tokens) == ((6, 0), min(count, 5))


def test_a_text_may_be_read_without_the_tokens_that_its_tokenizer_adds(bundled: LLM, monkeypatch) -> None:
    asked = []

    def encode(text, add_special_tokens=True):
        asked.append(add_special_tokens)
        return [5, 6] if add_special_tokens else [6]

    monkeypatch.setattr(bundled.tokenizer, "encode", encode)
    prompts = [bundled.generate("x", max_tokens=1, **how).origin.prompt_token_ids for how in ({}, WITHOUT)]
    assert (prompts, asked) == ([(5, 6), (6,)], [True, False])


WITHOUT = {"add_special_tokens": False}


# What does not fit


def narrow(**room) -> LLM:
    return LLM.from_target(ScriptedTarget(lambda history: np.eye(7)[0], vocab_size=7, **room), None)


def test_a_prompt_too_long_for_the_context_is_an_error_of_its_own() -> None:
    llm = narrow(max_length=20)
    for max_tokens in (1, 5, None):
        with pytest.raises(ContextLengthError) as caught:
            llm.generate([1] * 20, max_tokens=max_tokens)
        assert str(caught.value) == (
            "the prompt has 20 tokens; allowed: up to 19, for the maximum context length is 20 tokens"
        )
    with pytest.raises(
        ContextLengthError, match="has 21 tokens; allowed: up to 20, for the maximum context length is 20"
    ):
        llm.generate([1] * 21, max_tokens=0)
    with pytest.raises(RequestError, match=r"prompt \(19 tokens\) and max_tokens \(2\) exceed") as caught_too:
        llm.generate([1] * 19, max_tokens=2)
    assert not isinstance(caught_too.value, ContextLengthError)
    assert len(llm.generate([1] * 25, max_tokens=2, truncate_prompt_tokens=18).token_ids) == 2


def test_a_prompt_too_long_for_the_cache_says_what_to_do() -> None:
    message = "maximum context length is 12 tokens; the cache holds no more than 12, load with more cache_tokens"
    with pytest.raises(ContextLengthError, match=message):
        narrow(max_length=20, cache_tokens=12).generate([1] * 12)


# How an output ends


def test_an_output_says_which_stop_string_or_token_ended_it(bundled: LLM) -> None:
    whole = bundled.generate("Once upon a time", max_tokens=30)
    assert (whole.finish_reason, whole.stop_reason) == ("length", None)
    word = whole.text[20:27]
    cut = bundled.generate("Once upon a time", max_tokens=30, stop=["no such", word])
    kept = bundled.generate("Once upon a time", max_tokens=30, stop=word, include_stop_str_in_output=True)
    assert (cut.finish_reason, cut.stop_reason, kept.stop_reason) == ("stop", word, word)
    assert kept.text == cut.text + word == whole.text[: len(kept.text)]
    assert kept.token_ids == cut.token_ids
    ended = bundled.generate("Once upon a time", max_tokens=30, stop_token_ids=[whole.token_ids[7]])
    assert ended.stop_reason == whole.token_ids[7]


def test_special_tokens_are_text_where_a_caller_wants_them(bundled: LLM) -> None:
    [end] = {bundled.tokenizer.inner.eos_token_id}
    how = {"max_tokens": 3, "ignore_eos": True, "logit_bias": {end: 1e9}}
    assert bundled.generate("Once", **how).text == ""
    shown = bundled.generate("Once", **how, skip_special_tokens=False)
    assert shown.text == bundled.tokenizer.inner.eos_token * 3
    assert shown.origin.decode([end]) == bundled.tokenizer.inner.eos_token


def test_allowed_tokens_are_the_only_ones_and_must_be_the_models(bundled: LLM) -> None:
    allowed = [65, 70, 300]
    for drafters in ("none", "auto"):
        out = bundled.generate(
            "Once", max_tokens=12, temperature=1.0, seed=3, allowed_token_ids=allowed, drafters=drafters
        )
        assert set(out.token_ids) <= set(allowed)
        assert len(out.token_ids) == 12
    with pytest.raises(RequestError, match=rf"token id {10**6} is outside the vocabulary"):
        bundled.generate("Once", allowed_token_ids=[65, 10**6])
