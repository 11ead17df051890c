"""What a call may say beside its prompt and its sampling parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.engine.ports import Pacer
from paceline.engine.request import Drafter
from paceline.errors import ConfigError
from paceline.params import SamplingOptions, SamplingParams
from paceline.text.prompts import Prompt

Drafters = str | Sequence[str | Drafter]  # "auto", "none", an option string, or several of names and objects
DEFAULTS = SamplingParams()


class Options(SamplingOptions, total=False):
    """Keyword options of `generate` and its kin: sampling parameters, which override `sampling_params`, and these."""

    drafters: Drafters | None  # in place of those given at load; those beside "auto" in a list join the automatic ones
    prediction: Prompt | None  # what the output will probably be, as in OpenAI's API; it changes the speed alone
    tenant: str  # nothing learnt from one tenant's text drafts for another, and no prefix is shared
    pacer: Pacer | None  # in place of the one given at load; requests with different pacers are not decoded together


@dataclass(frozen=True)
class Call:
    """The options of one call, told apart."""

    params: SamplingParams
    drafters: Drafters | None
    prediction: Prompt | None
    tenant: str
    pacer: Pacer | None


def read_call(sampling_params: SamplingParams | None, options: Mapping[str, Any]) -> Call:
    """What a caller gave, checked.

    Raises:
        ConfigError: a parameter that there is not, or whose value is not allowed.
    """
    if not isinstance(sampling_params, SamplingParams | None):
        raise ConfigError(f"sampling_params is {sampling_params!r}; allowed: a SamplingParams, or keyword arguments")
    sampling = dict(options)
    own = {name: sampling.pop(name, default) for name, default in _OWN.items()}
    if not isinstance(own["tenant"], str):
        raise ConfigError(f"tenant is {own['tenant']!r}; allowed: a string")
    return Call((sampling_params or DEFAULTS).merged(sampling), **own)


_OWN: dict[str, Any] = {"drafters": None, "prediction": None, "tenant": "", "pacer": None}
