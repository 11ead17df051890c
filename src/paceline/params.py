"""What a caller may ask of the sampler: `SamplingParams`, checked when made and never changed after.

Knows nothing of models or tokenizers; `sampling/sampler.py` gives the parameters their meaning.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from typing_extensions import Unpack

from paceline import checks
from paceline.errors import ConfigError
from paceline.synonyms import unknown

GREEDY_TEMPERATURE = 1e-5  # below this, division overflows float32 logits; vLLM draws the same line


class SamplingOptions(TypedDict, total=False):
    """The keyword arguments of `SamplingParams`, and of `LLM.generate` and `LLM.stream` beside their own."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | Mapping[str, float] | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    include_stop_str_in_output: bool | None
    bad_words: Sequence[str] | None
    allowed_token_ids: Sequence[int] | None
    ignore_eos: bool | None
    min_tokens: int | None
    seed: int | None
    n: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    skip_special_tokens: bool | None
    regex: str | None
    choice: Sequence[str] | None
    response_format: Mapping[str, Any] | None


@dataclass(frozen=True, init=False, repr=False)
class SamplingParams:
    """How the target's logits become tokens. Semantics are vLLM's (its V1 sampler), in vLLM's order.

    Where vLLM and transformers differ, vLLM is followed. Presence and frequency penalties count generated
    tokens only, the repetition penalty counts prompt and generated tokens. `min_p` acts after temperature and
    before `top_k` and `top_p` (transformers: after them), and `top_k` keeps every token that ties with the k-th.
    A stop string is cut from the text while its tokens stay in `token_ids`. `logprobs` and `prompt_logprobs` are the
    model's own, before any parameter.

    None is the default of every parameter, but for `max_tokens`. Numbers and lists of numpy and torch are kept
    as Python's own. Objects are equal if their parameters are, and hashable without `logit_bias` and
    `response_format`.

    Attributes:
        max_tokens: most tokens to generate; None is as many as the context and the cache hold (where the rotary scaling
            changes with the length: the shortest context with room for 256). With 0, which vLLM refuses, the prompt
            is read into the prefix cache and nothing is decoded: the next request that begins with it is answered
            sooner.
        temperature: 0 (or below 1e-5) is greedy.
        top_k: keep the k likeliest tokens; 0 or -1 keeps all.
        top_p: keep the smallest set of likeliest tokens whose probability reaches this, in (0, 1].
        min_p: drop tokens less likely than this fraction of the likeliest, in [0, 1].
        repetition_penalty: above 0; 1 is off.
        presence_penalty: in [-2, 2].
        frequency_penalty: in [-2, 2].
        logit_bias: added to the logits of token ids, which may be strings, as the keys of JSON are.
        stop: strings that end the text, or one such string; they may span tokens.
        stop_token_ids: tokens that end the output, like an end-of-sequence token.
        include_stop_str_in_output: the text ends behind its stop string, not before it.
        bad_words: strings whose tokens may not be completed.
        allowed_token_ids: the only tokens that may be generated; an end-of-sequence token is one of them if named.
        ignore_eos: go on after an end-of-sequence token.
        min_tokens: no end-of-sequence, stop token or stop string before this many tokens.
        seed: any 64-bit integer; None draws a fresh one, which is reported.
        n: independent samples per prompt, keyed by their index.
        logprobs: report this many likeliest tokens at each place.
        prompt_logprobs: report what the model thought of the prompt's tokens, and this many likeliest at each place,
            up to 20. The whole prompt is read for it, whatever the prefix cache has.
        skip_special_tokens: leave special tokens out of the text; where they stay, so does the one that ends the
            output (vLLM drops that one).
        regex: the output matches this regular expression as a whole; no look-around, no back references.
        choice: the output is one of these strings.
        response_format: OpenAI's: `{"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}`,
            `{"type": "json_object"}`, or `{"type": "text"}`, which asks for nothing.
            JSON is complete within `max_tokens`, unless `"complete": False` stands beside "type".

    At most one of `regex`, `choice` and `response_format` is given. Such an output ends where its grammar does,
    whatever `ignore_eos` says.
    """

    max_tokens: int | None = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    response_format: Mapping[str, Any] | None = None

    json_schema: str | None = field(init=False, compare=False)  # what `response_format` asks for

    def __init__(self, **options: Unpack[SamplingOptions]) -> None:
        """Parameters from keyword arguments.

        Raises:
            ConfigError: a name that there is not, a value that is not allowed, or two that are not allowed together.
        """
        for name in options:
            if name not in _CHECKS:
                raise ConfigError(unknown(name, _CHECKS))
        given = {name: value for name, value in options.items() if value is not None}
        values: dict[str, Any] = _DEFAULTS | {name: _CHECKS[name](name, value) for name, value in given.items()}
        if options.get("max_tokens", ...) is None:
            values["max_tokens"] = None
        self.__dict__.update(values, json_schema=checks.schema_of(values["response_format"]))
        self._check_together()

    def merged(self, options: Mapping[str, Any]) -> SamplingParams:
        """These parameters with others in place of some; None in `options` is the default again.

        Raises:
            ConfigError: as when they are made.
        """
        return SamplingParams(**{**self._values(), **options})

    def limit(self, num_prompt_tokens: int, context: int) -> int:
        """Most tokens to generate after a prompt: `max_tokens`, or what the context leaves, but at least 1."""
        return max(context - num_prompt_tokens, 1) if self.max_tokens is None else self.max_tokens

    def resolved(self, num_prompt_tokens: int, context: int) -> SamplingParams:
        """These parameters with that limit as `max_tokens`.

        Raises:
            ConfigError: `min_tokens` is above it.
        """
        return self.merged({"max_tokens": self.limit(num_prompt_tokens, context)})

    @property
    def is_greedy(self) -> bool:
        """True if the likeliest token is taken and no noise is drawn."""
        return self.temperature < GREEDY_TEMPERATURE

    def __repr__(self) -> str:
        told = [f"{name}={value!r}" for name, value in self._values().items() if value != _DEFAULTS[name]]
        return f"SamplingParams({', '.join(told)})"

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CHECKS}

    def _check_together(self) -> None:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens is {self.min_tokens}, above max_tokens ({self.max_tokens})")
        grammars = {"regex": self.regex, "choice": self.choice, "response_format": self.json_schema}
        names = [name for name, value in grammars.items() if value is not None]
        if len(names) > 1:
            raise ConfigError(f"{' and '.join(names)} are given together; allowed: one of {', '.join(grammars)}")


_CHECKS: dict[str, checks.Check] = {
    "max_tokens": checks.integer(0),
    "temperature": checks.number(0.0, 1e4, "in [0, 10000]"),
    "top_k": checks.integer(-1),
    "top_p": checks.number(math.ulp(0.0), 1.0, "in (0, 1]"),
    "min_p": checks.number(0.0, 1.0, "in [0, 1]"),
    "repetition_penalty": checks.number(math.ulp(0.0), 1e4, "in (0, 10000]"),
    "presence_penalty": checks.number(-2.0, 2.0, "in [-2, 2]"),
    "frequency_penalty": checks.number(-2.0, 2.0, "in [-2, 2]"),
    "logit_bias": checks.bias,
    "stop": checks.string_or_strings,
    "stop_token_ids": checks.token_ids,
    "include_stop_str_in_output": checks.flag,
    "bad_words": checks.strings,
    "allowed_token_ids": checks.some_token_ids,
    "ignore_eos": checks.flag,
    "min_tokens": checks.integer(0),
    "seed": checks.integer(-(2**63), 2**64 - 1),
    "n": checks.integer(1, 1024),
    "logprobs": checks.integer(0, 100),
    "prompt_logprobs": checks.integer(0, 20),
    "skip_special_tokens": checks.flag,
    "regex": checks.text("a regular expression as a string"),
    "choice": checks.some_strings,
    "response_format": checks.response_format,
}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(SamplingParams) if field.init}
