"""What a call may say beside its prompt and its sampling parameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paceline.checks import Check, flag, integer, number, text
from paceline.engine.ports import Pacer
from paceline.engine.request import NO_TERMS, Drafter, Terms
from paceline.engine.stopping import UNCERTAIN, StopWhen, uncertain
from paceline.engine.tree import MAX_DEPTH
from paceline.errors import ConfigError
from paceline.params import SamplingOptions, SamplingParams
from paceline.sampling.sampler import Sampler
from paceline.text.prompts import Prompt

Drafters = str | Sequence[str | Drafter]  # "auto", "none", an option string, or several of names and objects
DEFAULTS = SamplingParams()
_DAY = 24 * 3600 * 1e3


class Options(SamplingOptions, total=False):
    """Keyword options of `generate` and its kin: sampling parameters, which override `sampling_params`, and these."""

    drafters: Drafters | None  # in place of those given at load; those beside "auto" in a list join the automatic ones
    prediction: Prompt | None  # what the output will probably be, as in OpenAI's API; it changes the speed alone
    tenant: str  # nothing learnt from one tenant's text drafts for another, and no prefix is shared
    pacer: Pacer | None  # in place of the one given at load; requests with different pacers are not decoded together
    source_language: str | None  # of an encoder-decoder's source, as its tokenizer names languages
    target_language: str | None  # that it is to write
    add_special_tokens: bool  # whether a text is read with those that its tokenizer adds, such as a first one
    truncate_prompt_tokens: int | None  # keep this many tokens of the prompt, the last ones
    deadline_ms: float | None  # milliseconds from now: what has been decoded by then is the output
    num_speculative_tokens: int | None  # most draft tokens per step, 0 is plain decoding; it changes the speed alone
    stop_when: Literal["uncertain"] | StopWhen | None  # end the output where the model is unsure, or a rule says so


@dataclass(frozen=True)
class Call:
    """The options of one call, told apart and checked."""

    params: SamplingParams
    drafters: Drafters | None = None
    prediction: Prompt | None = None
    tenant: str = ""
    pacer: Pacer | None = None
    source_language: str | None = None
    target_language: str | None = None
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    terms: Terms = NO_TERMS
    output_start: tuple[int, ...] | None = None  # of an encoder-decoder's output, in place of its own
    sampler: Callable[..., Sampler] = Sampler  # what makes a request's, given what `Sampler` is


def read_call(sampling_params: SamplingParams | None, options: Mapping[str, Any]) -> Call:
    """What a caller gave, checked.

    Raises:
        ConfigError: a parameter that there is not, or whose value is not allowed.
    """
    if not isinstance(sampling_params, SamplingParams | None):
        raise ConfigError(f"sampling_params is {sampling_params!r}; allowed: a SamplingParams, or keyword arguments")
    sampling = dict(options)
    own = {name: _CHECKS[name](name, sampling.pop(name)) for name in _CHECKS if name in sampling}
    terms = Terms(
        _moment(own.pop("deadline_ms", None)), own.pop("num_speculative_tokens", None), own.pop("stop_when", None)
    )
    return Call((sampling_params or DEFAULTS).merged(sampling), **own, terms=terms)


def _moment(milliseconds: float | None) -> float | None:
    """When so much time from now will have passed, by the engine's clock."""
    return None if milliseconds is None else time.perf_counter() + milliseconds / 1e3


def _or_none(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _stop_when(name: str, value: Any) -> StopWhen | None:
    if value == UNCERTAIN:
        return uncertain
    if value is None or callable(value):
        rule: StopWhen | None = value
        return rule
    raise ConfigError(f"{name} is {value!r}; allowed: {UNCERTAIN!r}, or a function of the last tokens")


def _as_it_is(name: str, value: Any) -> Any:
    return value  # checked where it is read


_CHECKS: dict[str, Check] = {
    "drafters": _as_it_is,
    "prediction": _as_it_is,
    "tenant": text("a string"),
    "pacer": _as_it_is,
    "source_language": _or_none(text("a string")),
    "target_language": _or_none(text("a string")),
    "add_special_tokens": flag,
    "truncate_prompt_tokens": _or_none(integer(1)),
    "deadline_ms": _or_none(number(math.ulp(0.0), _DAY, "of milliseconds above 0, up to a day")),
    "num_speculative_tokens": _or_none(integer(0, MAX_DEPTH)),
    "stop_when": _stop_when,
}
