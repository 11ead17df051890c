"""What a caller may ask of the target law: `SamplingParams`, checked when made and never changed after.

Knows nothing of models or tokenizers; `law.py` gives the parameters their meaning.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeGuard

from paceline.errors import ConfigError, first_line

GREEDY_TEMPERATURE = 1e-5  # below this, division overflows float32 logits; vLLM draws the same line


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of `LLM.generate` and `LLM.stream`, field for field those of `SamplingParams`."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    bad_words: Sequence[str]
    ignore_eos: bool
    min_tokens: int
    seed: int | None
    n: int
    logprobs: int | None
    regex: str | None
    choice: Sequence[str] | None
    response_format: Mapping[str, Any] | None


@dataclass(frozen=True)
class SamplingParams:
    """How the target's logits become tokens. Semantics are vLLM's (its V1 sampler), in vLLM's order.

    Where vLLM and transformers differ, vLLM is followed: presence and frequency penalties count generated
    tokens only, the repetition penalty counts prompt and generated tokens; `min_p` acts after temperature
    and before `top_k` and `top_p` (transformers: after them); `top_k` keeps every token that ties with the
    k-th; a stop string is cut from the text while its tokens stay in `token_ids`; `logprobs` are the
    model's own, before any parameter.

    Attributes:
        max_tokens: most tokens to generate, at least 1.
        temperature: 0 (or below 1e-5) is greedy.
        top_k: keep the k likeliest tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this, in (0, 1].
        min_p: drop tokens less likely than this fraction of the likeliest, in [0, 1].
        repetition_penalty: above 0; 1 is off.
        presence_penalty: in [-2, 2].
        frequency_penalty: in [-2, 2].
        logit_bias: added to the logits of token ids.
        stop: strings that end the text; they may span tokens.
        stop_token_ids: tokens that end the output, like an end-of-sequence token.
        bad_words: strings whose tokens may not be completed.
        ignore_eos: go on after an end-of-sequence token.
        min_tokens: no end-of-sequence, stop token or stop string before this many tokens.
        seed: any 64-bit integer; None draws a fresh one, which is reported.
        n: independent samples per prompt, keyed by their index.
        logprobs: report this many likeliest tokens at each place.
        regex: the output matches this regular expression as a whole; no look-around, no back references.
        choice: the output is one of these strings.
        response_format: OpenAI's: `{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}`,
            `{"type": "json_object"}`, or `{"type": "text"}`, which asks for nothing.

    At most one of the last three is given. Such an output ends where its grammar does, whatever `ignore_eos` says.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    bad_words: Sequence[str] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    response_format: Mapping[str, Any] | None = None

    # Kept for the law: the stop strings as a tuple, whatever the caller wrote.
    stop_strings: tuple[str, ...] = field(init=False, repr=False, compare=False)
    json_schema: str | None = field(init=False, repr=False, compare=False)  # what `response_format` asks for

    def __post_init__(self) -> None:
        for name, low, high in _INTEGERS:
            _check_integer(name, getattr(self, name), low, high)
        for name, low, high, rule in _NUMBERS:
            _check_number(name, getattr(self, name), low, high, rule)
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        _check_strings("stop", stop)
        _check_strings("bad_words", self.bad_words)
        _check_bias(self.logit_bias)
        _check_tokens("stop_token_ids", self.stop_token_ids)
        if self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens is {self.min_tokens}, above max_tokens ({self.max_tokens})")
        object.__setattr__(self, "stop_strings", tuple(stop))
        object.__setattr__(self, "json_schema", _schema_of(self.response_format))
        _check_grammars(self.regex, self.choice, self.json_schema)

    @property
    def is_greedy(self) -> bool:
        """True if the likeliest token is taken and no noise is drawn."""
        return self.temperature < GREEDY_TEMPERATURE

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SamplingParams:
        """Parameters from keyword arguments; an unknown name is refused with the list of known ones."""
        known = [f.name for f in dataclasses.fields(cls) if f.init]
        for name in options:
            if name not in known:
                raise ConfigError(f"unknown sampling parameter {name!r}; allowed: {', '.join(known)}")
        return cls(**options)


_INTEGERS: tuple[tuple[str, float, float], ...] = (
    ("max_tokens", 1, math.inf),
    ("top_k", -1, math.inf),
    ("min_tokens", 0, math.inf),
    ("n", 1, 1024),
    ("seed", -(2**63), 2**64 - 1),
    ("logprobs", 0, 100),
)
_NUMBERS: tuple[tuple[str, float, float, str], ...] = (
    ("temperature", 0.0, 1e4, "in [0, 10000]"),
    ("top_p", math.ulp(0.0), 1.0, "in (0, 1]"),
    ("min_p", 0.0, 1.0, "in [0, 1]"),
    ("repetition_penalty", math.ulp(0.0), 1e4, "in (0, 10000]"),
    ("presence_penalty", -2.0, 2.0, "in [-2, 2]"),
    ("frequency_penalty", -2.0, 2.0, "in [-2, 2]"),
)


def _check_integer(name: str, value: object, low: float, high: float) -> None:
    if value is None and name in ("seed", "logprobs"):
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        limit = f"at least {low:g}" if high == math.inf else f"from {int(low)} to {int(high)}"
        raise ConfigError(f"{name} is {value!r}; allowed: an integer {limit}")


def _check_number(name: str, value: object, low: float, high: float, rule: str) -> None:
    if not _is_number(value) or not low <= value <= high:  # NaN fails every comparison
        raise ConfigError(f"{name} is {value!r}; allowed: a number {rule}")


def _check_strings(name: str, values: object) -> None:
    if not _is_list(values) or not all(isinstance(v, str) and v for v in values):
        raise ConfigError(f"{name} is {values!r}; allowed: a list of strings that are not empty")


def _check_tokens(name: str, values: object) -> None:
    if not _is_list(values):
        raise ConfigError(f"{name} is {values!r}; allowed: a list of token ids")
    for token in values:
        _check_integer(name, token, 0, math.inf)


def _check_bias(bias: object) -> None:
    if bias is None:
        return
    if not isinstance(bias, Mapping):
        raise ConfigError(f"logit_bias is {bias!r}; allowed: a mapping from token ids to numbers")
    for token, value in bias.items():
        _check_integer("logit_bias token", token, 0, math.inf)
        if not _is_number(value) or not -math.inf <= value < math.inf:
            raise ConfigError(f"logit_bias[{token}] is {value!r}; allowed: a number, or -inf to forbid the token")


def _check_grammars(regex: object, choice: object, json_schema: str | None) -> None:
    if regex is not None and not isinstance(regex, str):
        raise ConfigError(f"regex is {regex!r}; allowed: a regular expression as a string")
    if choice is not None:
        _check_strings("choice", choice)
    if choice is not None and not choice:
        raise ConfigError(f"choice is {choice!r}; allowed: a list of at least one string")
    given = {"regex": regex, "choice": choice, "response_format": json_schema}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} are given together; allowed: one of {', '.join(given)}")


def _schema_of(response_format: object) -> str | None:
    """The JSON schema that a response format stands for; None for text."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return '{"type": "object"}'
    if not isinstance(response_format, Mapping) or kind != "json_schema":
        allowed = "a mapping whose type is 'text', 'json_object' or 'json_schema'"
        raise ConfigError(f"response_format is {response_format!r}; allowed: {allowed}")
    named = response_format.get("json_schema")
    schema = named.get("schema") if isinstance(named, Mapping) else None
    try:
        if isinstance(schema, (Mapping, bool)):
            return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the schema of response_format is no JSON: {first_line(error)}") from error
    raise ConfigError(f"json_schema of response_format is {named!r}; allowed: a mapping with a JSON schema as 'schema'")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(values: object) -> TypeGuard[Collection[object]]:
    return isinstance(values, Collection) and not isinstance(values, (str, bytes, Mapping))
