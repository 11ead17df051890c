"""What an operator says of drafting in vLLM: `--additional-config '{"paceline": {...}}'`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from paceline.drafters import make
from paceline.drafters.base import BaseDrafter, available
from paceline.engine.request import Drafter
from paceline.errors import ConfigError
from paceline.pacing import MAX_SLOWDOWN

DRAFTERS = ("history", "prediction", "suffix")
_READ = {  # what vLLM shows to no drafter, by the class's word for it
    "reads_hidden_states": "hidden states",
    "reads_logits": "logits",
    "reads_sampler": "the request's sampler",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How drafting goes.

    Args:
        drafters: option strings, as in `LLM`.
        max_slowdown: by what share decoding may be slower than without drafts.
    """

    drafters: Sequence[str] = DRAFTERS
    max_slowdown: float = MAX_SLOWDOWN


def read_settings(additional: Any) -> Settings:
    """The settings in vLLM's `additional_config`.

    Raises:
        ConfigError: a setting that there is not, or whose value is not allowed.
    """
    said = additional.get("paceline", {}) if isinstance(additional, Mapping) else {}
    allowed = [field.name for field in fields(Settings)]
    if not isinstance(said, Mapping):
        raise ConfigError(f"additional_config has paceline={said!r}; allowed: an object with {', '.join(allowed)}")
    unknown = [name for name in said if name not in allowed]
    if unknown:
        raise ConfigError(f"additional_config's paceline has {', '.join(unknown)}; allowed: {', '.join(allowed)}")
    settings = Settings(**said)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    drafters, slowdown = settings.drafters, settings.max_slowdown
    if isinstance(drafters, str) or not all(isinstance(spec, str) for spec in drafters):
        raise ConfigError(f"drafters is {drafters!r}; allowed: a list of names, with options")
    if isinstance(slowdown, bool) or not isinstance(slowdown, (int, float)) or not 0 <= slowdown <= 10:
        raise ConfigError(f"max_slowdown is {slowdown!r}; allowed: a number from 0 to 10")


def made(specs: Sequence[str]) -> list[Drafter]:
    """The drafters.

    Raises:
        ConfigError: there is none of a name, or it reads what vLLM hands to nobody.
    """
    drafters = [make(spec) for spec in specs]
    for drafter in drafters:
        reads = _reads(type(drafter))
        if reads:
            could = [name for name, cls in available().items() if not _reads(cls)]
            what = f"the drafter {drafter.name!r} reads {' and '.join(reads)}, and vLLM shows it tokens alone"
            raise ConfigError(f"{what}; allowed: {', '.join(could)}")
    return drafters


def _reads(cls: type) -> list[str]:
    return [words for name, words in _READ.items() if issubclass(cls, BaseDrafter) and getattr(cls, name)]
