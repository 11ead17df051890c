"""What a block head would bring on a text, before one is trained.

A head is right where the target itself is sure, and less often the deeper it looks. How often is a curve for each slot,
fitted on a head that was trained (`recipes/heads/calibrate.py`): the chance of acceptance by the target's largest
probability. Walked along what the target said, that gives tokens a step; the cost table says what such a step takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.doctor.costs import Seconds
from paceline.doctor.prediction import Interval, interval_of
from paceline.doctor.recording import RecordedOutput

Floats = NDArray[np.float64]

_RESAMPLES = 400
_MARGIN = 1e-3  # a probability is taken to be no nearer to 0 or 1


@dataclass(frozen=True)
class Curve:
    """Chances of acceptance: 1 / (1 + exp(-(slots[k] + slope * log-odds of the target's largest probability)))."""

    slots: tuple[float, ...]
    slope: float

    def at(self, largest: Floats) -> Floats:
        """(N, slots) for the target's largest probabilities at the slots' places (N, slots)."""
        p = np.clip(largest, _MARGIN, 1.0 - _MARGIN)
        odds: Floats = np.array(self.slots) + self.slope * np.log(p / (1.0 - p))
        return 1.0 / (1.0 + np.exp(-odds))


# Of the bundled head on held-out text of five kinds, greedily and at temperatures of 0.7 and 1.
GREEDY = Curve((2.633, 2.602, 2.450, 2.291, 2.043, 2.138, 2.006), 0.599)
SAMPLED = Curve((1.006, 0.794, 0.745, 0.649, 0.595, 0.574, 0.516), 0.241)


@dataclass(frozen=True)
class HeadForecast:
    """Of a head of the usual recipe."""

    mean_acceptance_length: Interval  # of a chain of as many drafts as bring most
    speedup: Interval  # of decoding over plain
    num_drafts: int


def forecast(recordings: Sequence[RecordedOutput], seconds: Seconds, head_share: float) -> HeadForecast | None:
    """What to expect; None where no output is long enough.

    `head_share` is what a head reads for a proposal, as a share of the target's weights.
    """
    walked = [found for recording in recordings if (found := _reached(recording)) is not None]
    if not walked:
        return None
    context = int(np.median([len(r.ids) + len(r.tokens) // 2 for r in recordings]))
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(walked), len(walked)) for _ in range(_RESAMPLES)]
    drafts = max(range(1, len(GREEDY.slots) + 1), key=lambda n: _gain(walked, n, seconds, context, head_share))
    lengths, gains = [], []
    for draw in draws:
        chosen = [walked[i] for i in draw]
        lengths.append(_length(chosen, drafts))
        gains.append(_gain(chosen, drafts, seconds, context, head_share))
    return HeadForecast(
        interval_of(_length(walked, drafts), lengths),
        interval_of(_gain(walked, drafts, seconds, context, head_share), gains),
        drafts,
    )


def _reached(recording: RecordedOutput) -> Floats | None:
    """(anchors, slots) the chances that a chain's first k drafts are all accepted, behind each place of an output."""
    temperature = float(recording.sampling.get("temperature", 0.0) or 0.0)
    curve = SAMPLED if temperature > 0.0 else GREEDY
    largest = np.array([_largest(row.logits, temperature or 1.0) for row in recording.rows])
    depth = len(curve.slots)
    if len(largest) < depth:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(largest, depth)
    return np.asarray(np.cumprod(curve.at(windows), 1), np.float64)


def _largest(logits: NDArray[np.float32], temperature: float) -> float:
    """Of the probabilities of the logits that were kept: the rest has next to none."""
    scaled = logits.astype(np.float64) / temperature
    return float(1.0 / np.exp(scaled - scaled.max()).sum())


def _length(walked: Sequence[Floats], num_drafts: int) -> float:
    total = sum(float(reached[:, :num_drafts].sum()) for reached in walked)
    return 1.0 + total / sum(len(reached) for reached in walked)


def _gain(walked: Sequence[Floats], num_drafts: int, seconds: Seconds, context: int, head_share: float) -> float:
    """Times plain decoding: tokens a step over what the step takes, in forwards of one row."""
    plain = seconds(1, context)
    block = seconds(len(GREEDY.slots) + 1, context)
    return _length(walked, num_drafts) * plain / (seconds(num_drafts + 1, context) + head_share * block)


def head_share(hidden_size: int, vocab_size: int, num_weights: int) -> float:
    """What a head of the usual recipe reads, over the target's weights: its layers, and the target's own head."""
    layer = hidden_size * (3 * (3 * hidden_size // 2) + 3 * hidden_size)
    layers = 1 if hidden_size <= 256 else 2
    return (layers * layer + hidden_size * vocab_size) / num_weights
