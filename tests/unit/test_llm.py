"""The facade as a user types it: parameters as an object, drafters that join, one line a result, and the end of it."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from paceline import LLM, ConfigError, SamplingParams, StateError
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
