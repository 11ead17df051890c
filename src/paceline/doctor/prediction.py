"""What is to be expected, with intervals: acceptance, tau and speed-up over plain decoding.

Intervals are a bootstrap of what the prediction rests on: which prompts there happened to be, what forwards happened
to take, and what the pacer made of that in several replays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paceline.doctor.costs import MeasuredCosts
from paceline.doctor.replay import Replayed

_RESAMPLES = 400
_COVERED = 0.95
# Not in any sample: a machine whose pace differs between a replay and the real thing. Chosen, not fitted.
_DRIFT = 0.04


@dataclass(frozen=True)
class Interval:
    """A figure, and where it will be in nineteen cases of twenty."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    def holds(self, figure: float) -> bool:
        """Whether a measured figure is within."""
        return self.low <= figure <= self.high

    @property
    def half_width(self) -> float:
        """As a share of the value."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0


@dataclass(frozen=True)
class Prediction:
    """What to expect of some prompts."""

    num_prompts: int
    num_tokens: int
    acceptance_rate: Interval  # accepted over verified draft tokens
    mean_acceptance_length: Interval
    speedup: Interval  # of decoding, prefill left out
    host_share: float  # of a plain step, beside the forward

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def predict(
    plain: Sequence[Replayed], paced: Sequence[Sequence[Replayed]], costs: MeasuredCosts, seed: int = 0
) -> Prediction:
    """The prediction from replays: `plain` one for each prompt, `paced` several times one for each prompt."""
    rng = np.random.default_rng(seed)
    everything = [replay for turn in paced for replay in turn]
    draws = [_draw(plain, paced, rng) for _ in range(_RESAMPLES)]
    drift = rng.normal(1.0, _DRIFT, _RESAMPLES)
    usual = costs.usual()
    speedups = [_speedup(*draw, costs.drawn(rng)) * d for draw, d in zip(draws, drift, strict=True)]
    value = _speedup(list(plain) * len(paced), everything, usual)
    host = sum(replay.host_seconds for replay in plain)
    return Prediction(
        len(plain),
        sum(replay.stats.num_emitted_tokens for replay in plain),
        interval_of(_rate(everything), [_rate(replays) for _, replays in draws]),
        interval_of(_length(everything), [_length(replays) for _, replays in draws]),
        interval_of(value, speedups),
        host / sum(replay.seconds(usual) for replay in plain),
    )


def _draw(
    plain: Sequence[Replayed], paced: Sequence[Sequence[Replayed]], rng: np.random.Generator
) -> tuple[list[Replayed], list[Replayed]]:
    """As many prompts with replacement, each in one of its replays."""
    prompts = rng.integers(0, len(plain), len(plain))
    turns = rng.integers(0, len(paced), len(plain))
    return [plain[i] for i in prompts], [paced[turn][i] for turn, i in zip(turns, prompts, strict=True)]


def interval_of(value: float, draws: Sequence[float]) -> Interval:
    """A figure, with the interval of what a bootstrap drew of it."""
    low, high = np.quantile(draws, [(1 - _COVERED) / 2, (1 + _COVERED) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def _speedup(plain: Sequence[Replayed], paced: Sequence[Replayed], cost: Callable[[int, int], float]) -> float:
    return sum(replay.seconds(cost) for replay in plain) / sum(replay.seconds(cost) for replay in paced)


def _rate(replays: Sequence[Replayed]) -> float:
    accepted, drafted = (
        sum(int(getattr(r.stats, key)) for r in replays) for key in ("num_accepted_draft_tokens", "num_draft_tokens")
    )
    return accepted / drafted if drafted else 0.0


def _length(replays: Sequence[Replayed]) -> float:
    emitted, steps = (sum(int(getattr(r.stats, key)) for r in replays) for key in ("num_emitted_tokens", "num_steps"))
    return emitted / steps
