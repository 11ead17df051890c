"""What is known of each token of an output. Definitions in words: docs/report.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from paceline.engine.request import Token
from paceline.output import Output
from paceline.report.places import Place, places

# Bits of the significand that are stored: neighbours at x lie 2**(floor(log2 |x|) - bits) apart.
_SIGNIFICAND = {"bfloat16": 7, "float16": 10, "float32": 23, "float64": 52}


@dataclass(frozen=True, slots=True)
class MeasuredToken:
    """One emitted token with its measures and its place among the drafts."""

    token: Token
    place: Place
    is_fragile: bool  # chosen by less than the model's dtype resolves

    @property
    def probability(self) -> float:
        """The token's chance in the model's own distribution."""
        return math.exp(self.token.logprob)


def measured(output: Output) -> list[MeasuredToken]:
    """Each token's measures, in order."""
    found = places(output.steps, [token.id for token in output.tokens])
    dtype, temperature = output.stats.numerics.get("dtype", "float32"), output.origin.params.temperature
    return [
        MeasuredToken(token, place, is_fragile(token.margin, token.logit, dtype, temperature))
        for token, place in zip(output.tokens, found, strict=True)
    ]


def is_fragile(margin: float, logit: float, dtype: str, temperature: float) -> bool:
    """Whether a margin is at most the spacing of the dtype's numbers at the logit, in the sampler's units.

    Two logits, each rounded to nearest, may come to differ by one spacing through rounding alone. For example,
    is_fragile(0.125, 16.2, "bfloat16", 0.0), since bfloat16's numbers between 16 and 32 lie 0.125 apart.
    """
    return margin <= spacing(logit, dtype) / (temperature or 1.0)


def spacing(value: float, dtype: str) -> float:
    """The distance between neighbouring numbers of a dtype at a value; 0 at 0."""
    if value == 0.0 or not math.isfinite(value):
        return 0.0
    return math.ldexp(1.0, math.frexp(value)[1] - 1 - _SIGNIFICAND[dtype])


def alternatives(output: Output, index: int) -> list[tuple[str, float]]:
    """The likeliest tokens at a place as (text, probability); empty unless `logprobs` was asked for.

    A token of no text of its own is `token 17`.
    """
    history = (*output.origin.prompt_token_ids, *output.token_ids[:index])
    return [(word(output, history[-1:], token), math.exp(logprob)) for token, logprob in output.tokens[index].top]


def word(output: Output, before: Sequence[int], token: int) -> str:
    """A token's text behind another: tokenizers drop a leading space at the start of a text."""
    decode = output.origin.decode
    prefix, whole = decode(before), decode((*before, token))
    text = whole[len(prefix) :] if whole.startswith(prefix) else decode((token,))
    return text or f"token {token}"
