"""`SamplingParams`: every bad value is refused with what was given and what is allowed."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import re
import typing
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paceline import LLM, ConfigError, ContextLengthError, SamplingParams, load
from paceline.options import Options
from paceline.params import SamplingOptions
from paceline.synonyms import ARGUMENTS, NOT_OFFERED, OUR_NAMES

NAN, INF = math.nan, math.inf
SCHEMA = {"type": "json_schema", "json_schema": {"name": "any", "schema": {}}}

BAD = [
    ("max_tokens", -1, "an integer at least 0"),
    ("max_tokens", 2.0, "an integer at least 0"),
    ("max_tokens", True, "an integer at least 0"),
    ("max_tokens", np.float32(2), "an integer at least 0"),
    ("max_tokens", np.bool_(True), "an integer at least 0"),
    ("max_tokens", torch.tensor(True), "an integer at least 0"),
    ("max_tokens", "2", "an integer at least 0"),
    ("max_tokens", np.array([2]), "an integer at least 0"),
    ("temperature", NAN, "a number in [0, 10000]"),
    ("temperature", -0.1, "a number in [0, 10000]"),
    ("temperature", INF, "a number in [0, 10000]"),
    ("temperature", "0.7", "a number in [0, 10000]"),
    ("temperature", 10**400, "a number in [0, 10000]"),
    ("temperature", np.float32(NAN), "a number in [0, 10000]"),
    ("temperature", np.array([0.5]), "a number in [0, 10000]"),
    ("temperature", torch.tensor(True), "a number in [0, 10000]"),
    ("temperature", 1j, "a number in [0, 10000]"),
    ("top_k", -2, "an integer at least -1"),
    ("top_k", 1.5, "an integer at least -1"),
    ("top_p", 0, "a number in (0, 1]"),
    ("top_p", 0.0, "a number in (0, 1]"),
    ("top_p", 1.0001, "a number in (0, 1]"),
    ("top_p", NAN, "a number in (0, 1]"),
    ("min_p", -1e-9, "a number in [0, 1]"),
    ("min_p", 1.1, "a number in [0, 1]"),
    ("repetition_penalty", 0.0, "a number in (0, 10000]"),
    ("repetition_penalty", -1.0, "a number in (0, 10000]"),
    ("repetition_penalty", INF, "a number in (0, 10000]"),
    ("presence_penalty", 2.1, "a number in [-2, 2]"),
    ("presence_penalty", False, "a number in [-2, 2]"),
    ("frequency_penalty", -2.1, "a number in [-2, 2]"),
    ("frequency_penalty", NAN, "a number in [-2, 2]"),
    ("logit_bias", [3], "a mapping from token ids to numbers"),
    ("stop", "", "a list of strings that are not empty"),
    ("stop", ["a", ""], "a list of strings that are not empty"),
    ("stop", [3], "a list of strings that are not empty"),
    ("stop", 3, "a list of strings that are not empty"),
    ("bad_words", "word", "a list of strings that are not empty"),
    ("stop", b"end", "a list of strings that are not empty"),
    ("ignore_eos", "false", "True or False"),
    ("ignore_eos", 1, "True or False"),
    ("bad_words", [""], "a list of strings that are not empty"),
    ("stop_token_ids", 3, "a list of token ids"),
    ("stop_token_ids", "3", "a list of token ids"),
    ("include_stop_str_in_output", "no", "True or False"),
    ("allowed_token_ids", [], "a list of at least one token id"),
    ("allowed_token_ids", 3, "a list of token ids"),
    ("min_tokens", -1, "an integer at least 0"),
    ("seed", 2**64, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("seed", -(2**63) - 1, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("seed", 1.0, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("n", 0, "an integer from 1 to 1024"),
    ("n", 1025, "an integer from 1 to 1024"),
    ("logprobs", -1, "an integer from 0 to 100"),
    ("logprobs", 101, "an integer from 0 to 100"),
    ("logprobs", True, "an integer from 0 to 100"),
    ("prompt_logprobs", -1, "an integer from 0 to 20"),
    ("prompt_logprobs", 21, "an integer from 0 to 20"),
    ("prompt_logprobs", True, "an integer from 0 to 20"),
    ("skip_special_tokens", 0, "True or False"),
    ("regex", 3, "a regular expression as a string"),
    ("choice", "yes", "a list of strings that are not empty"),
    ("choice", ["yes", ""], "a list of strings that are not empty"),
    ("choice", [], "a list of at least one string"),
    ("response_format", "json", "a mapping whose type is 'text', 'json_object' or 'json_schema'"),
    ("response_format", {"type": "xml"}, "a mapping whose type is 'text', 'json_object' or 'json_schema'"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD, ids=[f"{n}={str(v)[:8]}" for n, v, _ in BAD])
def test_a_bad_value_is_refused_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{name} is {value!r}; allowed: {allowed}')}$"):
        SamplingParams(**{name: value})


BAD_INSIDE = [
    ("logit_bias", {-1: 1.0}, "logit_bias token is -1"),
    ("logit_bias", {"-3": 1.0}, "logit_bias token is '-3'"),
    ("logit_bias", {" 3": 1.0}, "logit_bias token is ' 3'"),
    ("logit_bias", {"1_0": 1.0}, "logit_bias token is '1_0'"),
    ("logit_bias", {"²": 1.0}, "logit_bias token is '²'"),
    ("logit_bias", {"": 1.0}, "logit_bias token is ''"),
    ("logit_bias", {3.0: 1.0}, "logit_bias token is 3.0"),
    ("logit_bias", {True: 1.0}, "logit_bias token is True"),
    ("logit_bias", {"3": 1.0, 3: 2.0}, "logit_bias has token 3 twice"),
    ("logit_bias", {3: NAN}, "logit_bias[3] is nan"),
    ("logit_bias", {3: INF}, "logit_bias[3] is inf"),
    ("logit_bias", {3: "1"}, "logit_bias[3] is '1'"),
    ("logit_bias", {3: None}, "logit_bias[3] is None"),
    ("stop_token_ids", [4, -1], "stop_token_ids is -1"),
    ("stop_token_ids", [4.0], "stop_token_ids is 4.0"),
    ("allowed_token_ids", [4, -1], "allowed_token_ids is -1"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_INSIDE, ids=[m for _, _, m in BAD_INSIDE])
def test_a_bad_entry_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SamplingParams(**{name: value})


NAMES = [field.name for field in dataclasses.fields(SamplingParams) if field.init]


def test_every_parameter_has_a_bad_value_above() -> None:
    assert {name for name, _, _ in BAD} == set(NAMES)


GOOD = [
    {"temperature": 0},
    {"temperature": 1e4, "top_p": 1, "min_p": 1.0},
    {"top_k": -1, "top_p": 1e-300},
    {"seed": 2**64 - 1},
    {"seed": -(2**63), "n": 1024},
    {"logit_bias": {0: -INF, 3: 1}, "logprobs": 0},
    {"stop": ["a", "b"], "stop_token_ids": (3, 4), "bad_words": ["x"]},
    {"max_tokens": 3, "min_tokens": 3},
    {"max_tokens": 0, "prompt_logprobs": 20},
    {"prompt_logprobs": 0, "allowed_token_ids": [7], "skip_special_tokens": False, "include_stop_str_in_output": True},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_a_value_at_its_limit_is_allowed(options: dict) -> None:
    params = SamplingParams(**options)
    for name, value in options.items():
        assert getattr(params, name) == (tuple(value) if isinstance(value, list) else value)


def test_min_tokens_above_max_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_tokens is 4, above max_tokens \(3\)"):
        SamplingParams(max_tokens=3, min_tokens=4)


def test_a_single_stop_string_may_be_given_bare() -> None:
    assert SamplingParams(stop="end").stop == SamplingParams(stop=["end"]).stop == ("end",)


def test_parameters_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0


def test_keyword_options_are_the_parameters_field_for_field() -> None:
    assert list(SamplingOptions.__annotations__) == NAMES


# None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "max_tokens"])
def test_none_is_the_default(name: str) -> None:
    assert SamplingParams(**{name: None}) == SamplingParams()


def test_max_tokens_of_none_is_to_the_end_of_the_context() -> None:
    params = SamplingParams(max_tokens=None, seed=3)
    assert params.max_tokens is None
    assert params != SamplingParams(seed=3)
    for num_prompt_tokens in (1, 7, 99):
        wanted = SamplingParams(max_tokens=100 - num_prompt_tokens, seed=3)
        assert params.resolved(num_prompt_tokens, 100) == wanted
    assert params.resolved(100, 100).max_tokens == params.resolved(200, 100).max_tokens == 1  # which does not fit
    given = SamplingParams(max_tokens=5)
    assert given.resolved(99, 100) == given
    assert given.limit(99, 100) == 5


def test_min_tokens_is_held_against_the_resolved_limit() -> None:
    params = SamplingParams(max_tokens=None, min_tokens=9)
    assert params.resolved(11, 20).max_tokens == 9
    with pytest.raises(ConfigError, match=r"^min_tokens is 9, above max_tokens \(8\)$"):
        params.resolved(12, 20)


# Numbers and lists of every kind

INTEGER_NAMES = ["max_tokens", "top_k", "min_tokens", "seed", "n", "logprobs", "prompt_logprobs"]
NUMBER_NAMES = [
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
]
INTEGER_KINDS = [np.int64, np.int8, np.uint32, torch.tensor, np.array]
NUMBER_KINDS = [np.float64, np.float32, np.float16, torch.tensor, np.array, Fraction, np.int16]


@pytest.mark.parametrize("kind", INTEGER_KINDS)
@pytest.mark.parametrize("name", INTEGER_NAMES)
def test_an_integer_of_any_library_becomes_pythons_own(name: str, kind) -> None:
    value = getattr(SamplingParams(**{name: kind(5)}), name)
    assert type(value) is int
    assert value == 5


@pytest.mark.parametrize("kind", NUMBER_KINDS)
@pytest.mark.parametrize("name", NUMBER_NAMES)
def test_a_number_of_any_library_becomes_pythons_own(name: str, kind) -> None:
    number = 1 if kind is np.int16 else 0.25
    value = getattr(SamplingParams(**{name: kind(number)}), name)
    assert type(value) is float
    assert value == number


def test_the_names_above_are_all_that_are_numbers() -> None:
    defaults = SamplingParams()
    numeric = [name for name in NAMES if type(getattr(defaults, name)) in (int, float)]
    assert {*numeric, "seed", "logprobs", "prompt_logprobs"} == {*INTEGER_NAMES, *NUMBER_NAMES}


def test_flags_strings_and_lists_of_any_library_become_pythons_own() -> None:
    params = SamplingParams(
        stop=np.array(["a", "b"]),
        stop_token_ids=np.array([3, 4]),
        allowed_token_ids=torch.tensor([9]),
        bad_words=[np.str_("x")],
        choice=(np.str_("y"), "z"),
        ignore_eos=np.bool_(True),
    )
    lists = {"stop": ["a", "b"], "stop_token_ids": [3, 4], "allowed_token_ids": [9], "bad_words": ["x"]}
    own = SamplingParams(**lists, choice=["y", "z"], ignore_eos=True)
    assert repr(params) == repr(own)
    assert params == own
    assert SamplingParams(stop_token_ids=torch.tensor([5, 6])).stop_token_ids == (5, 6)
    assert SamplingParams(stop=np.str_("end")).stop == ("end",)


@given(st.dictionaries(st.integers(0, 2**17), st.floats(-100, 100, width=32), max_size=5), st.data())
def test_a_bias_is_the_same_with_keys_as_json_has_them(bias: dict[int, float], data) -> None:
    kinds = st.sampled_from([int, str, np.int64])
    written = {data.draw(kinds)(token): np.float32(value) for token, value in bias.items()}
    kept = SamplingParams(logit_bias=written).logit_bias
    assert kept == bias
    assert all(type(token) is int and type(value) is float for token, value in kept.items())


def test_parameters_keep_what_they_were_given() -> None:
    bias, words = {3: 1.0}, ["a"]
    params = SamplingParams(logit_bias=bias, stop=words)
    bias[3], words[0] = 9.0, "z"
    assert params.logit_bias == {3: 1.0}
    assert params.stop == ("a",)


# Names of other libraries

UNKNOWN = {
    "max_new_tokens": "Paceline's name for it is max_tokens",
    "max_length": "Paceline's name for it is max_tokens, which does not count the prompt",
    "do_sample": "Paceline's name for it is temperature, where 0 is greedy",
    "num_return_sequences": "Paceline's name for it is n",
    "assistant_model": "Paceline's name for it is draft_model, an argument of LLM",
    "prompt_lookup_num_tokens": "Paceline's name for it is drafters='suffix'",
    "num_beams": "Paceline does not offer beam search",
    "drafters": "it is an argument of LLM, generate and stream",
    "temprature": "did you mean temperature? allowed: max_tokens, temperature, top_k,",
    "top_q": "did you mean top_p? allowed: max_tokens, temperature, top_k,",
    "stop_strings": "Paceline's name for it is stop",
    "json_schema": "Paceline's name for it is response_format",
    "xyz": "allowed: max_tokens, temperature, top_k,",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_name_is_answered_with_ours_a_close_one_or_all(name: str) -> None:
    message = f"^unknown parameter '{name}'; {re.escape(UNKNOWN[name])}"
    with pytest.raises(ConfigError, match=message):
        SamplingParams(**{name: 3})
    with pytest.raises(ConfigError, match=message):
        SamplingParams().merged({name: None})


def test_each_answer_is_a_name_that_there_is_and_no_question_is_ours() -> None:
    for theirs, ours in OUR_NAMES.items():
        first = re.split(r"[ ,=]", ours)[0]
        assert first in NAMES or first in ARGUMENTS or hasattr(LLM, first), theirs
    assert not {*NAMES} & {*OUR_NAMES, *NOT_OFFERED, *ARGUMENTS}
    assert not {*OUR_NAMES} & {*NOT_OFFERED}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_argument_is_one_of_what_is_said_to_take_it(name: str) -> None:
    for taker in re.split(", | and ", ARGUMENTS[name]):
        options = typing.get_type_hints(Options) if taker != "LLM" else inspect.signature(load).parameters
        assert name in options


# The object


def test_options_override_an_object_and_are_checked() -> None:
    base = SamplingParams(temperature=0.8, stop="a", max_tokens=9, logit_bias={"3": 1})
    assert base.merged({}) == base
    assert base.merged({"seed": np.int64(7), "stop": ["b"]}) == SamplingParams(
        temperature=0.8, stop=["b"], max_tokens=9, logit_bias={3: 1.0}, seed=7
    )
    assert base.merged({"temperature": None}).temperature == 0.0
    assert base.merged({"max_tokens": None}).max_tokens is None
    assert base.temperature == 0.8
    with pytest.raises(ConfigError, match=r"^temperature is -1; allowed: a number"):
        base.merged({"temperature": -1})
    with pytest.raises(ConfigError, match=r"^min_tokens is 10, above max_tokens \(9\)$"):
        base.merged({"min_tokens": 10})
    with pytest.raises(ConfigError, match=r"^regex and choice are given together"):
        SamplingParams(regex="a").merged({"choice": ["a"]})


EVERYTHING = [
    {},
    {"temperature": 0.8, "seed": 7},
    {"max_tokens": None, "stop": ["a", "b"], "stop_token_ids": (3,), "bad_words": ["x"]},
    {"logit_bias": {"3": 1.0}, "n": 3, "logprobs": 2, "ignore_eos": True},
    {"max_tokens": 0, "prompt_logprobs": 2, "allowed_token_ids": (3, 4), "skip_special_tokens": False},
    {"response_format": SCHEMA},
]


@pytest.mark.parametrize("options", EVERYTHING, ids=str)
def test_parameters_can_be_pickled_copied_and_replaced(options: dict) -> None:
    params = SamplingParams(**options)
    for other in (pickle.loads(pickle.dumps(params)), copy.deepcopy(params), copy.copy(params)):
        assert other == params
        assert (other.stop, other.json_schema) == (params.stop, params.json_schema)
    assert dataclasses.replace(params, top_k=4) == params.merged({"top_k": 4})


def test_the_representation_says_what_differs_from_the_default_and_makes_it_again() -> None:
    assert repr(SamplingParams()) == "SamplingParams()"
    assert repr(SamplingParams(seed=7, temperature=0.8)) == "SamplingParams(temperature=0.8, seed=7)"
    assert repr(SamplingParams(max_tokens=None)) == "SamplingParams(max_tokens=None)"
    for options in EVERYTHING:
        assert eval(repr(SamplingParams(**options))) == SamplingParams(**options)


def test_parameters_without_a_mapping_are_hashable() -> None:
    one, same = (
        SamplingParams(stop=["a"], stop_token_ids=[3], choice=["x"]),
        SamplingParams(stop=("a",), stop_token_ids=(3,), choice=("x",)),
    )
    assert {one: 1}[same] == 1


# As a user writes them


def test_options_override_the_second_argument_of_generate_and_stream(bundled: LLM) -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=12)
    wanted = bundled.generate("Once", temperature=0.8, seed=7, max_tokens=12)
    assert bundled.generate("Once", params, seed=7).token_ids == wanted.token_ids
    assert [token.id for token in bundled.stream("Once", params, seed=np.int64(7))] == list(wanted.token_ids)
    assert bundled.generate("Once", params).seed == 3


def test_none_is_the_default_in_generate(bundled: LLM) -> None:
    options = {"temperature": None, "stop": None, "top_k": None, "logit_bias": None, "ignore_eos": None}
    wanted = bundled.generate("Once", max_tokens=6)
    assert bundled.generate("Once", max_tokens=6, **options).token_ids == wanted.token_ids


def test_without_a_limit_an_output_goes_to_the_end_of_the_context(bundled: LLM) -> None:
    room = min(bundled.target.max_length, bundled.target.capacity)
    prompt = (bundled.encode("Once upon a time there was a dog. ") * room)[: room - 21]
    output = bundled.generate(prompt, max_tokens=None, ignore_eos=True)
    assert (len(output.token_ids), output.finish_reason) == (21, "length")
    assert output.token_ids == bundled.generate(prompt, max_tokens=21, ignore_eos=True).token_ids
    both = bundled.generate([prompt, prompt[5:]], max_tokens=None, ignore_eos=True)
    assert [len(one.token_ids) for one in both] == [21, 26]
    with pytest.raises(
        ContextLengthError, match=rf"^the prompt has {room} tokens; allowed: up to {room - 1}, for the "
    ):
        bundled.generate((prompt * 2)[:room], max_tokens=None)


def test_a_bias_as_json_has_it_acts(bundled: LLM) -> None:
    forced = bundled.generate("Once", max_tokens=3, logit_bias={"65": 1e9}).token_ids
    assert forced == (65, 65, 65)


def test_another_librarys_name_is_answered_in_generate(bundled: LLM) -> None:
    with pytest.raises(
        ConfigError, match=r"^unknown parameter 'max_new_tokens'; Paceline's name for it is max_tokens$"
    ):
        bundled.generate("Once", max_new_tokens=3)
    with pytest.raises(ConfigError, match=r"^unknown parameter 'max_token'; did you mean max_tokens\? allowed:"):
        bundled.stream("Once", max_token=3)


def test_two_grammars_at_once_are_refused_and_text_is_none() -> None:
    with pytest.raises(ConfigError, match=r"^regex and choice are given together; allowed: one of regex, choice, resp"):
        SamplingParams(regex="a", choice=["a"])
    with pytest.raises(ConfigError, match=r"^choice and response_format are given together"):
        SamplingParams(choice=["a"], response_format=SCHEMA)
    assert SamplingParams(regex="a", response_format={"type": "text"}).json_schema is None


@pytest.mark.parametrize("named", [None, {}, {"schema": "string"}, {"name": "x", "schema": [1]}], ids=str)
def test_a_json_schema_that_is_none_is_refused(named: object) -> None:
    allowed = "allowed: a mapping with a JSON schema as 'schema'"
    with pytest.raises(ConfigError, match=f"^json_schema of response_format is .*; {allowed}$"):
        SamplingParams(response_format={"type": "json_schema", "json_schema": named})


@pytest.mark.parametrize("value", [{1, 2}, math.nan], ids=str)
def test_a_schema_that_json_cannot_say_is_refused(value: object) -> None:
    named = {"name": "x", "schema": {"const": value}}
    with pytest.raises(ConfigError, match=r"^the schema of response_format is no JSON: "):
        SamplingParams(response_format={"type": "json_schema", "json_schema": named})
