"""Structured output: what a grammar allows at each place, where it ends, and the same bytes with every drafter.

That it is complete within a limit: test_closing.py.

The law under a grammar is held to its reference in test_enumeration.py and test_promises.py, as every parameter is;
what the bundled model says under one is in test_structured_output.py.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from law.reference import allowed_by_grammar, reference_scores
from law.support import EOS, KINDS, WORDS, Kind, RecordingLaw, compiler_of, decode, target_of, tiny_tokenizer
from paceline import LLM, ConfigError, RequestError
from paceline.params import SamplingParams
from paceline.sampling.grammar import Compiler, Grammar
from paceline.testing import ScriptedDrafter, ScriptedTarget

VOCAB = 9  # tokens 5 to 8 are padding
A, B, AB, C = (WORDS[word] for word in ("a", "b", "ab", "c"))
ENDS = frozenset({EOS})

WARM = {
    "temperature": 1.0,
    "top_k": 3,
    "top_p": 0.9,
    "min_p": 0.01,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.3,
    "logit_bias": {C: 0.5},
}


def started(eos=ENDS, **params) -> Grammar:
    grammar = compiler_of(VOCAB).start(SamplingParams(**params), eos, 99)
    assert grammar is not None
    return grammar


def allowed(grammar: Grammar) -> set[int]:
    return {int(token) for token in np.flatnonzero(grammar.mask())}


# The mask


@pytest.mark.parametrize("name", ["regex", "choice", "choice without EOS"])
def test_the_mask_is_what_can_be_completed_after_every_history(name: str) -> None:
    kind = KINDS[name]
    start = compiler_of(VOCAB).start(SamplingParams(**kind.params), kind.eos, 99)
    reached = [((), start)]
    for history, grammar in reached:
        expected = allowed_by_grammar(kind, history, VOCAB).numpy()
        np.testing.assert_array_equal(grammar.mask(), expected)
        for token in np.flatnonzero(expected) if len(history) < 5 else ():
            if token not in kind.eos:
                further = grammar.copy()
                further.advance(int(token))
                reached.append(((*history, int(token)), further))
    assert len(reached) > 5


def test_only_one_text_left_is_spelled_in_the_tokenizers_own_tokens() -> None:
    grammar = started(regex="cabc")
    for token in (C, AB, C):
        assert allowed(grammar) == {token}
        grammar.advance(token)
    assert allowed(grammar) == {EOS}


def test_a_choice_that_begins_another_may_end_or_go_on() -> None:
    grammar = started(choice=["ab", "abc"])
    grammar.advance(AB)
    assert allowed(grammar) == {EOS, C}
    grammar.advance(C)
    assert allowed(grammar) == {EOS}
    grammar.advance(EOS)
    assert grammar.is_finished


def test_all_of_several_ends_are_allowed_where_the_text_is_complete() -> None:
    ends = frozenset({EOS, 7})
    grammar = started(ends, choice=["ab", "c"])
    assert not ends & allowed(grammar)
    grammar.advance(C)
    assert allowed(grammar) == ends
    grammar.advance(7)
    assert grammar.is_finished


def test_special_tokens_and_padding_are_forbidden_even_where_all_text_is_allowed() -> None:
    assert allowed(started(frozenset(), regex=r"[\s\S]*")) == {A, B, AB, C}
    assert allowed(started(regex=r"[\s\S]*")) == {EOS, A, B, AB, C}
    assert allowed(compiler_of(5).start(SamplingParams(regex="[a-z<>]*"), (), 99)) == {A, B, AB, C}


def test_a_token_that_does_not_follow_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^token 4 does not follow the grammar: .+$"):
        started(choice=["ab"]).advance(C)
    with pytest.raises(RequestError, match=r"^token 0 does not follow the grammar"):
        started(choice=["ab"]).advance(EOS)


def test_a_copy_goes_its_own_way() -> None:
    grammar = started(regex="(ab|b)*c?")
    twin = copy.deepcopy(grammar)
    twin.advance(C)
    assert (allowed(twin), allowed(grammar)) == ({EOS}, {EOS, A, B, AB, C})
    twin.advance(EOS)
    assert twin.copy().is_finished
    assert not grammar.is_finished


# What is forced


def test_forced_tokens_are_the_only_ones_allowed_and_asking_changes_nothing() -> None:
    asked, unasked = started(regex="(a|b)cabc"), started(regex="(a|b)cabc")
    assert asked.forced() == ()
    for token in (A, C, AB, C, EOS):
        forced = asked.forced()
        assert not forced or forced[0] == token
        assert asked.forced() == forced
        np.testing.assert_array_equal(asked.mask(), unasked.mask())
        asked.advance(token)
        unasked.advance(token)
    assert asked.forced() == ()


def test_what_is_forced_ends_with_the_end_if_there_is_one_end_only() -> None:
    assert started(regex="cabc").forced() == (C, AB, C, EOS)
    assert started(frozenset(), regex="cabc").forced() == (C, AB, C)
    assert started(frozenset({EOS, 7}), regex="cabc").forced() == (C, AB, C)
    assert EOS not in started(regex="cabc?").forced()


# The law


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0}, WARM], ids=["greedy", "temperature", "all"])
@pytest.mark.parametrize("asked", [{"regex": "(ab|b)*c?"}, {"choice": ["ab", "abab", "ca", "b"]}], ids=str)
def test_scores_at_every_position_inside_drafts_are_the_references(params: dict, asked: dict) -> None:
    target, kind = target_of(VOCAB, seed=2), Kind({**params, **asked}, eos=ENDS)
    for seed in range(5):
        drafters = [ScriptedDrafter.perfect(target)]
        request = kind.request(VOCAB, 20, seed=seed, drafters=drafters, law=RecordingLaw)
        [output] = decode(target, [request])
        for place, (row, scores) in enumerate(request.sampler.records[: len(output)]):
            expected = reference_scores(kind, kind.prompt, output[:place], row)
            np.testing.assert_allclose(scores, expected, rtol=1e-12)


def test_without_an_end_of_sequence_the_output_ends_with_its_grammar() -> None:
    target = target_of(VOCAB)
    for right, seed in itertools.product((0, 2, 9), range(9)):
        drafters = [ScriptedDrafter.adversarial(target, right)]
        request = Kind({"temperature": 1.0, "choice": ["ab", "ca"]}).request(VOCAB, 20, seed=seed, drafters=drafters)
        [output] = decode(target, [request])
        assert output in ((A, B), (AB,), (C, A))
        assert request.finish_reason == "stop"


def test_a_grammar_ends_the_output_though_ends_of_sequence_are_ignored() -> None:
    target = target_of(VOCAB)
    kind = Kind({"choice": ["ab", "ca"], "ignore_eos": True}, eos=ENDS)
    request = kind.request(VOCAB, 20, drafters=[ScriptedDrafter.perfect(target)])
    [output] = decode(target, [request])
    assert output[-1] == EOS
    assert (request.finish_reason, len(output) <= 3) == ("stop", True)


@pytest.mark.parametrize("eos", [ENDS, frozenset()], ids=["EOS", "no EOS"])
def test_an_output_that_would_end_before_min_tokens_is_refused(eos: frozenset[int]) -> None:
    target = target_of(VOCAB)
    request = Kind({"choice": ["ab"], "min_tokens": 4}, eos=eos).request(VOCAB, 20)
    decode(target, [request])
    with pytest.raises(
        RequestError, match=r"every token is forbidden at position .*min_tokens, max_tokens and the grammar leave"
    ):
        raise request.error


def test_min_tokens_is_met_by_a_grammar_that_can_go_on() -> None:
    target, kind = target_of(VOCAB), Kind({"temperature": 1.0, "regex": "(a|b|c)*", "min_tokens": 4}, eos=ENDS)
    for seed in range(9):
        [output] = decode(target, [kind.request(VOCAB, 30, seed=seed)])
        assert EOS not in output[:4]


def test_a_stop_that_the_text_meets_first_wins_over_a_place_behind_it_where_nothing_is_allowed() -> None:
    """A walk over drafts goes on behind a stop token; what it meets there must not fail the request."""
    target = target_of(VOCAB)
    kind = Kind({"choice": ["cab"], "stop_token_ids": [C], "logit_bias": {A: -np.inf, AB: -np.inf}}, eos=ENDS)
    for script in ([], [C], [C, AB, EOS]):
        request = kind.request(VOCAB, 9, drafters=[ScriptedDrafter([script])])
        assert decode(target, [request]) == [(C,)]
        assert (request.finish_reason, request.error) == ("stop", None)


def test_a_place_that_no_token_can_spell_fails_the_request_in_words() -> None:
    """The grammar allows "az", and no token of the vocabulary has a z."""
    target, kind = target_of(VOCAB), Kind({"regex": "az"}, eos=ENDS)
    request = kind.request(VOCAB, 9, drafters=[ScriptedDrafter([[A, B]])])
    assert decode(target, [request]) == [(A,)]
    with pytest.raises(RequestError, match=r"^the grammar cannot be followed any further: \w+$"):
        raise request.error


# What is refused


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"regex": "(a"}, "regex is no grammar that can be followed: unclosed group"),
        ({"regex": "(?=a)b"}, "regex is no grammar that can be followed: look-around, .* is not supported"),
        ({"regex": r"[^\s\S]"}, "regex allows no text at all; allowed: .*"),
        ({"regex": "z+"}, "regex allows no text at all; allowed: .*"),
        ({"regex": "\ud800"}, "the grammar is no Unicode text: .*"),
        ({"choice": ["\ud800"]}, "choice is no grammar that can be followed: .*"),
    ],
    ids=str,
)
def test_a_grammar_that_nothing_can_follow_is_refused_in_one_line(params: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        started(**params)


@pytest.mark.parametrize("schema", [False, {"type": "string", "format": "nothing"}, {"type": 3}, {"enum": []}], ids=str)
def test_a_schema_that_nothing_can_follow_is_refused_in_one_line(schema: object) -> None:
    with pytest.raises(ConfigError, match=r"^response_format is no grammar that can be followed: .+$"):
        started(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def test_without_a_tokenizer_a_grammar_is_refused_and_nothing_else() -> None:
    llm = LLM.from_target(target_of(VOCAB), tokenizer=None)
    with pytest.raises(RequestError, match="this model has no tokenizer; a grammar needs one"):
        llm.generate([1], choice=["a"], max_tokens=3)
    assert llm.generate([1], max_tokens=3, response_format={"type": "text"}).finish_reason == "length"


def test_a_tokenizer_is_read_once_and_only_for_a_grammar() -> None:
    read = []

    def definition() -> str:
        read.append(1)
        return tiny_tokenizer()

    compiler = Compiler(definition, VOCAB)
    assert compiler.start(SamplingParams(), ENDS, 99) is None
    assert read == []
    for regex in ("a", "b", "a"):
        compiler.start(SamplingParams(regex=regex), ENDS, 99)
    assert read == [1]
    assert compiler._compiled.cache_info().misses == 2


# Choices of all kinds

LETTERS = st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(LETTERS, st.integers(0, 99), st.booleans(), st.integers(0, 6))
def test_any_choices_give_one_of_them_with_any_drafts(choices: list[str], seed: int, ends: bool, right: int) -> None:
    target: ScriptedTarget = target_of(VOCAB, seed=3)
    kind = Kind({"temperature": 1.0, "choice": choices}, eos=ENDS if ends else frozenset())
    drafted = kind.request(VOCAB, 30, seed=seed, drafters=[ScriptedDrafter.adversarial(target, right)])
    plain = kind.request(VOCAB, 30, seed=seed)
    outputs = decode(target, [drafted, plain])
    assert outputs[0] == outputs[1]
    spelled = {token: word for word, token in WORDS.items()}
    assert "".join(spelled[token] for token in outputs[0] if token != EOS) in choices
    assert plain.finish_reason == drafted.finish_reason == "stop"
