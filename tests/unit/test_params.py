"""`SamplingParams`: every bad value is refused with what was given and what is allowed."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from paceline import ConfigError, SamplingParams
from paceline.params import SamplingOptions

NAN, INF = math.nan, math.inf

BAD = [
    ("max_tokens", 0, "an integer at least 1"),
    ("max_tokens", 2.0, "an integer at least 1"),
    ("max_tokens", True, "an integer at least 1"),
    ("max_tokens", None, "an integer at least 1"),
    ("temperature", NAN, "a number in [0, 10000]"),
    ("temperature", -0.1, "a number in [0, 10000]"),
    ("temperature", INF, "a number in [0, 10000]"),
    ("temperature", "0.7", "a number in [0, 10000]"),
    ("temperature", None, "a number in [0, 10000]"),
    ("temperature", 10**400, "a number in [0, 10000]"),
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
    ("stop", None, "a list of strings that are not empty"),
    ("bad_words", "word", "a list of strings that are not empty"),
    ("bad_words", [""], "a list of strings that are not empty"),
    ("stop_token_ids", 3, "a list of token ids"),
    ("stop_token_ids", "3", "a list of token ids"),
    ("stop_token_ids", None, "a list of token ids"),
    ("min_tokens", -1, "an integer at least 0"),
    ("seed", 2**64, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("seed", -(2**63) - 1, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("seed", 1.0, f"an integer from {-(2**63)} to {2**64 - 1}"),
    ("n", 0, "an integer from 1 to 1024"),
    ("n", 1025, "an integer from 1 to 1024"),
    ("logprobs", -1, "an integer from 0 to 100"),
    ("logprobs", 101, "an integer from 0 to 100"),
    ("logprobs", True, "an integer from 0 to 100"),
    ("regex", 3, "a regular expression as a string"),
    ("choice", "yes", "a list of strings that are not empty"),
    ("choice", ["yes", ""], "a list of strings that are not empty"),
    ("choice", [], "a list of at least one string"),
    ("response_format", "json", "a mapping whose type is 'text', 'json_object' or 'json_schema'"),
    ("response_format", {"type": "xml"}, "a mapping whose type is 'text', 'json_object' or 'json_schema'"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD, ids=[f"{n}={str(v)[:8]}" for n, v, _ in BAD])
def test_a_bad_value_is_refused_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    shown = ("",) if (name, value) == ("stop", "") else value
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{name} is {shown!r}; allowed: {allowed}')}$"):
        SamplingParams(**{name: value})


BAD_INSIDE = [
    ("logit_bias", {-1: 1.0}, "logit_bias token is -1"),
    ("logit_bias", {"3": 1.0}, "logit_bias token is '3'"),
    ("logit_bias", {3: NAN}, "logit_bias[3] is nan"),
    ("logit_bias", {3: INF}, "logit_bias[3] is inf"),
    ("logit_bias", {3: "1"}, "logit_bias[3] is '1'"),
    ("logit_bias", {3: None}, "logit_bias[3] is None"),
    ("stop_token_ids", [4, -1], "stop_token_ids is -1"),
    ("stop_token_ids", [4.0], "stop_token_ids is 4.0"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_INSIDE, ids=[m for _, _, m in BAD_INSIDE])
def test_a_bad_entry_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SamplingParams(**{name: value})


def test_every_parameter_has_a_bad_value_above_except_the_one_that_takes_any() -> None:
    names = {field.name for field in dataclasses.fields(SamplingParams) if field.init}
    assert names - {name for name, _, _ in BAD} == {"ignore_eos"}


GOOD = [
    {"temperature": 0},
    {"temperature": 1e4, "top_p": 1, "min_p": 1.0},
    {"top_k": -1, "top_p": 1e-300},
    {"seed": 2**64 - 1},
    {"seed": -(2**63), "n": 1024},
    {"logit_bias": {0: -INF, 3: 1}, "logprobs": 0},
    {"stop": ["a", "b"], "stop_token_ids": (3, 4), "bad_words": ["x"]},
    {"max_tokens": 3, "min_tokens": 3},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_a_value_at_its_limit_is_allowed(options: dict) -> None:
    params = SamplingParams.from_options(options)
    assert {name: getattr(params, name) for name in options} == options


def test_min_tokens_above_max_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_tokens is 4, above max_tokens \(3\)"):
        SamplingParams(max_tokens=3, min_tokens=4)


def test_an_unknown_parameter_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown sampling parameter 'top_q'; allowed: max_tokens, temperature,"):
        SamplingParams.from_options({"top_q": 0.9})


def test_what_the_law_derives_is_no_parameter() -> None:
    with pytest.raises(ConfigError, match="unknown sampling parameter 'stop_strings'"):
        SamplingParams.from_options({"stop_strings": ()})


def test_a_single_stop_string_may_be_given_bare() -> None:
    assert SamplingParams(stop="end").stop_strings == SamplingParams(stop=["end"]).stop_strings == ("end",)


def test_parameters_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().temperature = 1.0


def test_keyword_options_are_the_parameters_field_for_field() -> None:
    names = [field.name for field in dataclasses.fields(SamplingParams) if field.init]
    assert list(SamplingOptions.__annotations__) == names


SCHEMA = {"type": "json_schema", "json_schema": {"name": "any", "schema": {}}}


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
