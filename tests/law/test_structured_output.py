"""Structured output of the bundled model: what was asked for, and the same bytes with every drafter and neighbour."""

from __future__ import annotations

import asyncio
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import LLM, Output
from paceline.params import SamplingParams

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
SENTENCE = r"[A-Z][a-z]{1,9}( [a-z]{1,9}){1,6}\."
CHOICES = ["yes", "yesterday", "né à Köln", "日本 😀", 'a "quoted"\n\\ one']
ASKED = {"schema": {"response_format": SCHEMA}, "regex": {"regex": SENTENCE}, "choice": {"choice": CHOICES}}


def follows(name: str, text: str) -> bool:
    """Whether a text is what `ASKED[name]` asks for."""
    if name == "choice":
        return text in CHOICES
    if name == "regex":
        return re.fullmatch(SENTENCE, text) is not None
    found = json.loads(text)
    is_named = list(found) == ["name", "age", "kind"] and isinstance(found["name"], str) and len(found["name"]) <= 12
    return is_named and type(found["age"]) is int and 0 <= found["age"] <= 120 and found["kind"] in ("cat", "dog")


def test_forced_tokens_of_the_bundled_model_are_allowed_alone(bundled: LLM) -> None:
    grammar = bundled._runtime.factory.grammars.start(SamplingParams(**ASKED["schema"]), {0}, 99)
    forced = grammar.forced()
    assert bundled.tokenizer.decode(forced).startswith('{"name":')
    for token in forced:
        assert np.flatnonzero(grammar.mask()).tolist() == [token]
        grammar.advance(token)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 9))
def test_the_bundled_model_gives_one_of_any_choices(bundled: LLM, choices: list[str], seed: int) -> None:
    output = bundled.generate("Say", choice=choices, max_tokens=60, temperature=1.0, seed=seed, drafters="none")
    assert output.finish_reason == "stop"
    assert bundled.tokenizer.decode(output.token_ids) in choices


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("name", ASKED)
def test_outputs_of_the_bundled_model_follow_their_grammar(bundled: LLM, name: str, temperature: float) -> None:
    prompts = ["Once upon a time", "The dog", "A list:"]
    outputs = bundled.generate(prompts, max_tokens=120, temperature=temperature, seed=5, n=2, **ASKED[name])
    assert len(outputs) == 6
    for output in outputs:
        assert output.finish_reason == "stop"
        assert follows(name, output.text), output.text


def test_an_empty_schema_and_any_object_parse(bundled: LLM) -> None:
    empty = {"type": "json_schema", "json_schema": {"name": "any", "schema": {}}}
    for asked in (empty, {"type": "json_object"}):
        outputs = bundled.generate(["Data:"], max_tokens=80, temperature=1.0, seed=3, n=6, response_format=asked)
        for output in outputs:
            assert output.finish_reason == "stop"
            json.loads(output.text)


def test_an_output_cut_by_max_tokens_is_the_beginning_of_the_whole(bundled: LLM) -> None:
    asked = {"response_format": {**SCHEMA, "complete": False}}
    whole = bundled.generate("Hello", max_tokens=120, temperature=0.9, seed=2, **asked)
    cut = bundled.generate("Hello", max_tokens=6, temperature=0.9, seed=2, **asked)
    assert cut.finish_reason == "length"
    assert cut.token_ids == whole.token_ids[:6]


def bits_of(output: Output) -> tuple:
    return output.token_ids, output.text, [(token.logprob, token.entropy, token.top) for token in output.tokens]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("name", ASKED)
def test_the_same_bytes_whatever_drafts(bundled: LLM, forced: LLM, name: str, temperature: float) -> None:
    how = {"max_tokens": 60, "temperature": temperature, "seed": 8, "logprobs": 2, "n": 2, **ASKED[name]}
    plain = [bits_of(output) for output in bundled.generate(["Once upon a time"], drafters="none", **how)]
    for llm in (bundled, forced):
        assert [bits_of(o) for o in llm.generate(["Once upon a time"], drafters="auto", **how)] == plain


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_same_bytes_beside_neighbours_with_other_grammars_and_with_none(bundled: LLM, temperature: float) -> None:
    how = {"max_tokens": 40, "temperature": temperature, "seed": 4, "logprobs": 1}
    every = [{**how, **asked} for asked in (*ASKED.values(), {})]
    alone = [bits_of(bundled.generate("Once upon a time", drafters="none", **one)) for one in every]

    async def together() -> list[Output]:
        return await asyncio.gather(*(bundled.agenerate("Once upon a time", **one) for one in every))

    assert [bits_of(output) for output in asyncio.run(together())] == alone


# Complete within max_tokens


def schema(**members: object) -> dict:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": members}}}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "properties",
    [{"c": {"enum": ["é", "naïve", "日本"]}}, {"n": {"type": "integer"}}, {"s": {"type": "string"}}],
    ids=["enum", "integer", "string"],
)
def test_structured_output_is_complete_within_max_tokens(bundled: LLM, properties: dict, temperature: float) -> None:
    asked = schema(type="object", properties=properties, required=[*properties], additionalProperties=False)
    how = {"temperature": temperature, "seed": 1, "n": 3, "drafters": "none"}
    for max_tokens in (15, 40, 120):
        for output in bundled.generate(["JSON:"], max_tokens=max_tokens, **how, **asked):
            assert [*json.loads(output.text)] == [*properties]
            assert output.finish_reason == "stop"
