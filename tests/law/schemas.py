"""JSON schemas drawn at random, models of noise that do not want to end, and the tokenizers they speak with."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
from hypothesis import strategies as st
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paceline.testing import ScriptedTarget
from paceline.text.tokenizer import Tokenizer

Schema = dict[str, Any]

NAMES = st.sampled_from(["a", "id", "name", "last name", "größe", "日本", 'q"', "b\\", "x-1", "is_a", "𝄞"])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-99, 2000),
    st.sampled_from([0.5, -1.25, 300.0]),
    NAMES,
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(NAMES, st.integers(0, 9), max_size=2),
)
PATTERNS = [
    "^[a-z]{3}$",
    "^\\d{4}-\\d{2}$",
    "^(ab)*c$",
    "^[A-F0-9]{8}$",
    "^(yes|no|maybe)$",
    "^\\+?[0-9 ]{5,}$",
    "^.{2,}x$",
]
FORMATS = ["date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "hostname", "uri"]


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    low, size = draw(st.integers(-1200, 1200)), draw(st.integers(0, 500))
    bounds = {"minimum": low, "maximum": low + size}
    if size > 1:
        bounds |= draw(st.sampled_from([{}, {"exclusiveMinimum": low}, {"exclusiveMaximum": low + size}]))
    kept = draw(st.sets(st.sampled_from(sorted(bounds))))
    return {"type": draw(st.sampled_from(["integer", "number"]))} | {name: bounds[name] for name in sorted(kept)}


@st.composite
def strings(draw: st.DrawFn) -> Schema:
    low = draw(st.integers(0, 30))
    options: list[Schema] = [
        {},
        {"minLength": low},
        {"maxLength": low},
        {"minLength": low, "maxLength": low + draw(st.integers(0, 9))},
        {"pattern": draw(st.sampled_from(PATTERNS))},
        {"format": draw(st.sampled_from(FORMATS))},
    ]
    return {"type": "string"} | draw(st.sampled_from(options))


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    low = draw(st.integers(0, 3))
    options: list[Schema] = [{}, {"minItems": low}, {"minItems": low, "maxItems": low + draw(st.integers(0, 2))}]
    first = draw(st.lists(inner, max_size=2))
    return (
        {"type": "array", "items": draw(inner)}
        | draw(st.sampled_from(options))
        | ({"prefixItems": first} if first else {})
    )


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    more = draw(st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "integer"}}]))
    return {"type": "object", "properties": properties, "required": required} | more


LEAVES = st.one_of(
    st.builds(lambda value: {"const": value}, VALUES),
    st.builds(lambda values: {"enum": values}, st.lists(VALUES, min_size=1, max_size=4)),
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["integer", "null"]}, {"type": "object"}, {}]),
    numbers(),
    strings(),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        objects(inner),
        arrays(inner),
        st.builds(lambda several: {"anyOf": several}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)
NODE = {"$ref": "#/$defs/node"}
RECURSIVE: list[Schema] = [
    {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"next": NODE}, "required": ["next"]}]},
    {
        "type": "object",
        "properties": {"x": {"type": "string"}, "all": {"type": "array", "items": NODE}},
        "required": ["all"],
    },
    {
        "anyOf": [
            {"type": "array", "items": NODE, "minItems": 1},
            {
                "type": "object",
                "properties": {"v": {"type": "integer"}},
                "required": ["v"],
                "additionalProperties": False,
            },
        ]
    },
    {"anyOf": [{"type": "array", "items": NODE, "minItems": 2}, {"type": "integer", "minimum": 100}]},
]
TREES_OF_NODES = st.builds(lambda node: {"$defs": {"node": node}, **NODE}, st.sampled_from(RECURSIVE))
SCHEMAS = st.one_of(TREES, objects(TREES), TREES_OF_NODES)


def is_valid(schema: Schema, text: str) -> bool:
    value = json.loads(text)
    jsonschema.validate(value, schema, jsonschema.Draft202012Validator)
    return True


def byte_tokenizer() -> Tokenizer:
    """A token for each byte, and an end."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Inner(models.BPE({"<e>": 0} | {sign: i + 1 for i, sign in enumerate(signs)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return Tokenizer(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>"))


def _wants(signs: str) -> Callable[[str], bool]:
    return lambda text: bool(text) and all(sign in signs for sign in text)


# What a model of noise may like above all. Without a wish it is noise alone.
WISHES: dict[str, Callable[[str], bool]] = {
    "nothing": lambda text: False,
    "whitespace": str.isspace,
    "digits": str.isdigit,
    "brackets": _wants("[{"),
    "letters": str.isalpha,
    "quotes and commas": _wants('",:'),
    "the next item": _wants(", \n"),
}


def noise(tokenizer: Tokenizer, wish: str, seed: int) -> ScriptedTarget:
    """A target whose logits are random, a function of the whole history, and high where its wish is met."""
    size = len(tokenizer.inner)
    liked = np.array([WISHES[wish](tokenizer.decode([token])) for token in range(size)])

    @functools.lru_cache(4096)
    def logits(history: tuple[int, ...]) -> np.ndarray:
        row = np.random.default_rng([seed, *history]).normal(scale=1.5, size=size)
        return (row + 8.0 * liked).astype(np.float32)

    return ScriptedTarget(logits, size)
