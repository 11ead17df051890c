"""Areas of uncertainty: a hysteresis rule over entropy and disagreement, smoothed, never single tokens.

The level of a token is its entropy in nats plus the drafts' disagreement (0 to 1; nothing where nobody drafted),
averaged with its neighbours. A span is a run of levels of at least `low`, one of which is at least `high`. Runs with
at most `GAP` tokens between them are one span, and spans shorter than `MIN_TOKENS` are none. Two thresholds, because
one alone cuts an area into pieces wherever the level crosses it for a token (Schmitt 1938; Canny 1986 in pictures).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paceline.engine.stopping import HIGH, LOW, MIN_TOKENS
from paceline.output import Output
from paceline.report.measures import MeasuredToken, measured

HIGH_QUANTILE = 0.85  # of the text's own levels: of a text that is unsure throughout the worst is shown
LOW_QUANTILE = 0.6
GAP = 2
_NEIGHBOURS = 1  # on either side


@dataclass(frozen=True, slots=True)
class UncertainSpan:
    """Tokens `start` to `end` (exclusive) of an output, their text, and why they are listed."""

    start: int
    end: int
    text: str
    reasons: tuple[str, ...]
    mean_entropy: float  # nats
    max_entropy: float
    mean_disagreement: float | None  # over the tokens where drafts were; None if there were none

    def __len__(self) -> int:
        return self.end - self.start


def uncertain_spans(output: Output) -> list[UncertainSpan]:
    """Areas of an output in which the model was unsure, in order.

    Uncertainty is not error: a sure model can be wrong, and where many words would do it must be unsure.
    """
    return spans_of(measured(output))


def spans_of(tokens: Sequence[MeasuredToken]) -> list[UncertainSpan]:
    """The areas among tokens that have been measured."""
    if not tokens:
        return []
    smooth = smoothed([t.token.entropy + (t.place.disagreement or 0.0) for t in tokens])
    high = max(HIGH, float(np.quantile(smooth, HIGH_QUANTILE)))
    low = max(LOW, float(np.quantile(smooth, LOW_QUANTILE)))
    areas = hysteresis(smooth, low, high, GAP, MIN_TOKENS)
    inside = {i for start, end in areas for i in range(start, end)}
    rest = [t.token.entropy for i, t in enumerate(tokens) if i not in inside]
    return [_described(tokens, start, end, rest) for start, end in areas]


def smoothed(levels: Sequence[float]) -> list[float]:
    """The mean of each level and its neighbours, as many as there are: [0, 3, 0] gives [1.5, 1, 1.5]."""
    size = len(levels)
    windows = [levels[max(i - _NEIGHBOURS, 0) : min(i + _NEIGHBOURS + 1, size)] for i in range(size)]
    return [sum(window) / len(window) for window in windows]


def hysteresis(
    levels: Sequence[float], low: float, high: float, gap: int = 0, min_tokens: int = 1
) -> list[tuple[int, int]]:
    """Runs [start, end) of levels >= low that reach high, near ones joined, short ones left out.

    >>> hysteresis([0, 1, 3, 1, 0, 1, 0, 2, 2], low=1, high=2, gap=3)
    [(1, 9)]
    """
    runs = [run for run in _runs(levels, low) if max(levels[run[0] : run[1]]) >= high]
    joined: list[tuple[int, int]] = []
    for start, end in runs:
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= min_tokens]


def _runs(levels: Sequence[float], low: float) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff([False, *(level >= low for level in levels), False]))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _described(tokens: Sequence[MeasuredToken], start: int, end: int, rest: Sequence[float]) -> UncertainSpan:
    inside = tokens[start:end]
    entropies = [t.token.entropy for t in inside]
    doubts = [d for d in (t.place.disagreement for t in inside) if d is not None]
    mean, peak = float(np.mean(entropies)), max(entropies)
    doubt = float(np.mean(doubts)) if doubts else None
    text = "".join(t.token.text for t in inside)
    reasons = (
        _entropy_reason(mean, peak, rest),
        *_draft_reasons(inside, doubt, len(doubts)),
        *_fragile_reasons(inside),
    )
    return UncertainSpan(start, end, text, reasons, mean, peak, doubt)


def _entropy_reason(mean: float, peak: float, rest: Sequence[float]) -> str:
    beside = f"; the text outside such areas has {np.mean(rest):.1f}" if rest else ""
    return f"entropy {mean:.1f} nats on average, {peak:.1f} at most{beside}"


def _draft_reasons(inside: Sequence[MeasuredToken], doubt: float | None, num_drafted: int) -> list[str]:
    if doubt is None:
        return []
    corrected = sum(t.place.kind == "corrected" for t in inside)
    overruled = f", and were corrected at {corrected} of {num_drafted} tokens" if corrected else ""
    return [f"drafts disagreed by {doubt:.2f} on average{overruled}"]


def _fragile_reasons(inside: Sequence[MeasuredToken]) -> list[str]:
    fragile = sum(t.is_fragile for t in inside)
    return [f"{fragile} of {len(inside)} tokens were chosen by less than the dtype resolves"] if fragile else []
