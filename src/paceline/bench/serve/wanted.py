"""What is to be said of a load: which times, which percentiles, and which limits make a request a good one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paceline.errors import ConfigError

GOALS = ("ttft", "tpot", "e2el")
METRICS = ("ttft", "tpot", "itl", "token_gap", "e2el", "client_queue_time")


@dataclass(frozen=True)
class FigureOptions:
    """What is to be said of a load."""

    percentiles: tuple[float, ...] = (50.0, 95.0, 99.0)
    metrics: tuple[str, ...] = METRICS
    goodput: Mapping[str, float] | None = None  # milliseconds by name of GOALS
    deadline_ms: float | None = None


def parse_goodput(pairs: Sequence[str]) -> dict[str, float] | None:
    """Limits in milliseconds from `ttft:200`, several of them in one text or in many; None from nothing.

    Raises:
        ConfigError: another name, or no number of at least 0.
    """
    found: dict[str, float] = {}
    for pair in (pair for text in pairs for pair in text.replace(",", " ").split()):
        name, _, value = pair.partition(":")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if name not in GOALS or not found[name] >= 0:
            raise ConfigError(f"goodput is {pair!r}; allowed: ttft:MS, tpot:MS, e2el:MS")
    return found or None


def parse_percentiles(text: str) -> tuple[float, ...]:
    """Percentiles from `50,95,99`.

    Raises:
        ConfigError: anything but numbers from 0 to 100.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= value <= 100 for value in found):
        raise ConfigError(f"metric-percentiles is {text!r}; allowed: numbers from 0 to 100 with commas between them")
    return found


def parse_metrics(text: str) -> tuple[str, ...]:
    """Names of METRICS from `ttft,tpot`.

    Raises:
        ConfigError: another name.
    """
    names = tuple(part.strip() for part in text.split(","))
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ConfigError(f"percentile-metrics has {unknown[0]!r}; allowed: {', '.join(METRICS)}")
    return names
