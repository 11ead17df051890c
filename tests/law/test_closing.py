"""Structured output is complete within max_tokens: any schema, any model of noise, any limit, any drafts."""

from __future__ import annotations

import functools
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from law.reference import tokens_to_complete
from law.schemas import SCHEMAS, WISHES, Schema, byte_tokenizer, is_valid, noise
from law.support import DRAFTERS, EOS, WORDS, Kind, compiler_of, decode, target_of
from paceline import LLM, ConfigError, Output, RequestError
from paceline.params import SamplingParams
from paceline.text.tokenizer import Tokenizer, load_tokenizer

VOCAB = 9
A, B, AB, C = (WORDS[word] for word in ("a", "b", "ab", "c"))
ENDS = frozenset({EOS})
TOKENIZERS = ("bundled", "bytes")


@functools.cache
def tokenizer_of(name: str) -> Tokenizer:
    if name == "bytes":
        return byte_tokenizer()
    found = load_tokenizer("paceline-tiny", target_of(4096), trust_remote_code=False)
    assert found is not None
    return found


@functools.cache
def model_of_noise(tokenizer: str, wish: str) -> LLM:
    named = tokenizer_of(tokenizer)
    target = noise(named, wish, seed=1)
    return LLM.from_target(
        target, named, drafters=[make(target) for name, make in DRAFTERS.items() if name != "perfect"]
    )


def asking(schema: Schema, **more: object) -> dict:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}, **more}}


def fewest_tokens(llm: LLM, **asked: object) -> int:
    """The least `max_tokens` that is not refused."""
    params = SamplingParams(**asked)
    try:
        llm._runtime.factory.grammars.start(params, ENDS, 0)
    except ConfigError as error:
        return int(str(error).removeprefix("max_tokens is 0; allowed: at least ").split(",")[0])
    return 0


def generated(llm: LLM, max_tokens: int, **how: object) -> Output:
    return llm.generate([1], max_tokens=max_tokens, **how)


# Any schema


@settings(max_examples=100, deadline=None)
@given(
    schema=SCHEMAS,
    name=st.sampled_from(TOKENIZERS),
    wish=st.sampled_from(sorted(WISHES)),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 9),
    room=st.sampled_from([0, 1, 2, 5, "twice", 60]),
)
def test_any_json_parses_and_follows_its_schema(
    schema: Schema, name: str, wish: str, temperature: float, seed: int, room: int | str
) -> None:
    llm, how = model_of_noise(name, wish), {"temperature": temperature, "seed": seed, **asking(schema)}
    fewest = fewest_tokens(llm, **asking(schema))
    output = generated(llm, fewest + (fewest if room == "twice" else room), drafters="none", **how)
    assert output.finish_reason == "stop"
    assert is_valid(schema, output.text)


@settings(max_examples=15, deadline=None)
@given(SCHEMAS, st.sampled_from(TOKENIZERS), st.sampled_from(sorted(WISHES)), st.integers(0, 9), st.integers(0, 20))
def test_the_tokens_are_those_of_plain_decoding_whatever_drafts(
    schema: Schema, name: str, wish: str, seed: int, room: int
) -> None:
    llm = model_of_noise(name, wish)
    fewest = fewest_tokens(llm, **asking(schema))
    for temperature in (0.0, 1.0):
        how = {"temperature": temperature, "seed": seed, **asking(schema)}
        plain = generated(llm, fewest + room, drafters="none", **how)
        drafted = generated(llm, fewest + room, **how)
        assert (drafted.token_ids, drafted.finish_reason) == (plain.token_ids, "stop")


@pytest.mark.parametrize("name", DRAFTERS)
def test_the_tokens_are_those_of_plain_decoding_with_each_drafter(name: str) -> None:
    llm = model_of_noise("bytes", "the next item")
    drafters = [DRAFTERS[name](llm.target)]
    schema = {"type": "array", "items": {"type": "array", "items": {"enum": ["é", "naïve", 12]}, "minItems": 1}}
    for max_tokens, seed in itertools.product((2, 3, 17, 40), (1, 2)):
        how = {"temperature": 1.0, "seed": seed, **asking(schema)}
        plain = generated(llm, max_tokens, drafters="none", **how)
        assert generated(llm, max_tokens, drafters=drafters, **how).token_ids == plain.token_ids
        assert is_valid(schema, plain.text)


@settings(max_examples=40, deadline=None)
@given(SCHEMAS, st.sampled_from(TOKENIZERS), st.sampled_from([0.0, 1.0]), st.integers(0, 9))
def test_where_there_is_ample_room_nothing_is_changed(schema: Schema, name: str, temperature: float, seed: int) -> None:
    llm = model_of_noise(name, "nothing")
    how = {"temperature": temperature, "seed": seed, "drafters": "none"}
    free = generated(llm, 80, **how, **asking(schema, complete=False))
    assume(len(free.token_ids) < 80)
    assume(4 * fewest_tokens(llm, **asking(schema)) <= 320)
    assert generated(llm, 320, **how, **asking(schema)).token_ids == free.token_ids


def test_a_text_that_must_be_long_is_complete_too() -> None:
    llm = model_of_noise("bytes", "letters")
    for schema in ({"type": "string", "minLength": 300}, {"type": "array", "items": {"const": 1}, "minItems": 75}):
        assert is_valid(schema, generated(llm, 310, drafters="none", **asking(schema)).text)


# The limit


def test_a_limit_that_no_text_fits_is_refused_before_decoding() -> None:
    llm = model_of_noise("bytes", "nothing")
    schema = {"type": "object", "properties": {"ab": {"type": "boolean"}}, "required": ["ab"]}
    fewest = len('{"ab":true}')
    assert fewest_tokens(llm, **asking(schema)) == fewest
    num_forwards = llm.target.num_forwards
    with pytest.raises(ConfigError, match=f"^max_tokens is 10; allowed: at least {fewest}, .+ response_format allows"):
        generated(llm, fewest - 1, **asking(schema))
    assert llm.target.num_forwards == num_forwards
    assert generated(llm, fewest, **asking(schema)).text == '{"ab":true}'


@pytest.mark.parametrize(
    ("schema", "fewest"),
    [
        ({"enum": ["naïve", "é", "日本"]}, 4),
        ({"type": "integer", "minimum": 1234}, 4),
        ({"anyOf": [{"type": "array", "minItems": 4}, {"type": "string", "minLength": 3}]}, 5),
        ({"type": "object"}, 2),
        ({"type": "string", "pattern": "^[a-z]*x$"}, 3),
        ({"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "null"}}, "required": ["b"]}, 10),
    ],
    ids=str,
)
def test_the_shortest_text_is_found(schema: Schema, fewest: int) -> None:
    assert fewest_tokens(model_of_noise("bytes", "nothing"), **asking(schema)) == fewest


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=4), st.booleans(), st.integers(0, 99))
def test_a_choice_fits_the_fewest_tokens_that_spell_it(choices: list[str], ends: bool, seed: int) -> None:
    kind = Kind({"temperature": 1.0, "choice": choices}, eos=ENDS if ends else frozenset())
    fewest = int(tokens_to_complete(kind, (), 7))
    if fewest > 1:
        with pytest.raises(ConfigError, match=f"allowed: at least {fewest}, which the shortest text that choice"):
            kind.request(VOCAB, fewest - 1)
    request = kind.request(VOCAB, fewest, seed=seed)
    [output] = decode(target_of(VOCAB), [request])
    assert request.finish_reason == "stop"
    assert tokens_to_complete(kind, output, 0) == 0


@pytest.mark.parametrize("eos", [ENDS, frozenset()], ids=["EOS", "no EOS"])
def test_an_expression_is_matched_within_every_limit(eos: frozenset[int]) -> None:
    kind = Kind({"temperature": 1.5, "regex": "(abab|cc)+(c{3})*"}, eos=eos)
    for max_tokens, seed in itertools.product(range(2, 9), range(12)):
        request = kind.request(VOCAB, max_tokens, seed=seed)
        [output] = decode(target_of(VOCAB), [request])
        assert tokens_to_complete(kind, output, 0) == 0
        assert request.finish_reason == "stop"


def test_a_text_that_is_complete_with_the_last_token_needs_no_end_of_sequence() -> None:
    request = Kind({"choice": ["ab"]}, eos=ENDS).request(VOCAB, 1)
    assert decode(target_of(VOCAB), [request]) == [(AB,)]
    assert request.finish_reason == "stop"


def test_what_parameters_forbid_is_not_taken_as_a_way_out() -> None:
    kind = Kind({"regex": "(ab)*c", "logit_bias": {C: -np.inf}}, eos=ENDS)
    request = kind.request(VOCAB, 5)
    decode(target_of(VOCAB), [request])
    with pytest.raises(RequestError, match=r"every token is forbidden at position .+ max_tokens and the grammar leave"):
        raise request.error


def test_what_fits_is_what_can_be_completed() -> None:
    kind = Kind({"regex": "(ab|b)*c?ab"}, eos=ENDS)
    for room in range(1, 6):
        reached = [((), compiler_of(VOCAB).start(SamplingParams(**kind.params), ENDS, room))]
        for history, grammar in reached:
            for token in np.flatnonzero(grammar.mask()[:VOCAB]) if len(history) < room else ():
                left = room - len(history) - 1
                fits = tokens_to_complete(kind, (*history, int(token)), left) <= left
                assert grammar.fits(int(token)) == fits
                if fits and token != EOS:
                    further = grammar.copy()
                    further.advance(int(token))
                    reached.append(((*history, int(token)), further))
        assert len(reached) > room


# Whitespace, and what can be asked for


def test_whitespace_between_json_tokens_is_bounded_unless_asked_otherwise() -> None:
    llm = model_of_noise("bytes", "whitespace")
    schema = {"type": "array", "items": {"type": "array", "items": {"const": 1}}, "minItems": 2}
    text = generated(llm, 300, drafters="none", **asking(schema)).text
    assert re.search(r"\n {24}", text)
    assert all(re.fullmatch(r" |\n {0,24}", part) for part in re.findall(r"\s+", text))
    free = generated(llm, 300, drafters="none", **asking(schema | {"x-guidance": {"whitespace_flexible": True}}))
    assert re.search(r"\s{26}", free.text)
    assert is_valid(schema, free.text)
    compact = generated(llm, 300, drafters="none", **asking(schema | {"x-guidance": {"whitespace_flexible": False}}))
    assert not re.search(r"\s", compact.text)
    tabs = generated(llm, 300, drafters="none", **asking(schema | {"x-guidance": {"whitespace_pattern": "\\t"}}))
    assert re.search(r"\t", tabs.text)
    assert not re.search(r"[ \n]", tabs.text)


@pytest.mark.parametrize(
    "text", ['{"a": [1, 1], "b": {}}', '{"a":[1,1],"b":{}}', json.dumps({"a": [1, 1], "b": {}}, indent=4)]
)
def test_json_as_it_is_often_written_is_allowed(text: str) -> None:
    llm = model_of_noise("bundled", "nothing")
    grammar = llm._runtime.factory.grammars.start(SamplingParams(response_format={"type": "json_object"}), {0}, 99)
    for token in tokenizer_of("bundled").inner(text, add_special_tokens=False)["input_ids"]:
        assert grammar.fits(token)
        grammar.advance(token)
    assert grammar.mask()[0]


def test_an_output_may_be_asked_for_that_is_cut() -> None:
    llm = model_of_noise("bytes", "whitespace")
    for kind in ({"type": "json_object"}, asking({"type": "object"})["response_format"]):
        output = generated(llm, 9, drafters="none", response_format={**kind, "complete": False})
        assert (output.finish_reason, len(output.token_ids), output.text[0]) == ("length", 9, "{")
        with pytest.raises(ValueError, match="line"):
            json.loads(output.text)
        with pytest.raises(ConfigError, match=r"^complete of response_format is 'no'; allowed: true or false$"):
            generated(llm, 9, response_format={**kind, "complete": "no"})
