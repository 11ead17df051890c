"""Decisions whose right answers are known, as one page: reliability, risk against coverage, and the worst areas.

An area is a choice with all prompts for which it was the likeliest, or a pair of choices that were taken for each
other. Knows nothing of models: probabilities and labels are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paceline._version import __version__
from paceline.deciding.binomial import upper_bound
from paceline.deciding.labelled import Decided
from paceline.report.charts import Chart, draw_reliability, percent
from paceline.report.page import template
from paceline.report.places import Bin
from paceline.report.scoring import auroc, risk

_CONFIDENCE = 0.95
_NUM_BINS = 10
_NUM_EXAMPLES = 8


@dataclass(frozen=True)
class Area:
    """Decisions with something in common: how many, how many of them wrong, and the rate that cannot be ruled out."""

    name: str
    count: int
    wrong: int

    @property
    def rate(self) -> float:
        """The share that is wrong."""
        return self.wrong / self.count

    @property
    def bound(self) -> float:
        """The highest rate that the counts do not rule out (95 %)."""
        return upper_bound(self.wrong, self.count, _CONFIDENCE)


def decisions_page(decided: Sequence[Decided]) -> str:
    """HTML about decisions, at least one of them, with their right answers."""
    answered = [one for one in decided if one.is_answered]
    ranked = sorted((one for one in decided if one.is_wrong), key=lambda one: -one.probability)
    return template("decisions.html").render(
        version=__version__,
        facts=facts(decided),
        charts=[reliability_chart(bins(decided)), coverage_chart(decided)],
        areas=areas(answered),
        confusions=confusions(decided),
        examples=ranked[:_NUM_EXAMPLES],
        num_answered=len(answered),
    )


def facts(decided: Sequence[Decided]) -> list[tuple[str, str]]:
    """The figures of all decisions together."""
    every = Area("", len(decided), sum(one.is_wrong for one in decided))
    answered = [one for one in decided if one.is_answered]
    wrong = np.array([one.is_wrong for one in decided])
    unsure = np.array([1.0 - one.probability for one in decided])
    found = [("decisions", str(every.count)), ("wrong if all are answered", _share(every))]
    if answered:
        some = Area("", len(answered), sum(one.is_wrong for one in answered))
        found += [
            ("answered at the threshold", f"{some.count} ({_percent(some.count / every.count)})"),
            ("wrong among these", _share(some)),
            ("the highest rate that this does not rule out (95 %)", _percent(some.bound)),
        ]
    found.append(("calibration error", _percent(calibration_error(bins(decided)))))
    return [*found, ("AUROC of the probability", f"{auroc(unsure, wrong):.3f}")]


def bins(decided: Sequence[Decided]) -> list[Bin]:
    """Tenths of the likeliest choice's probability that have decisions."""
    found: dict[int, list[Decided]] = {}
    for one in decided:
        found.setdefault(min(int(one.probability * _NUM_BINS), _NUM_BINS - 1), []).append(one)
    return [
        Bin(
            sum(one.probability for one in part) / len(part),
            sum(not one.is_wrong for one in part) / len(part),
            len(part),
        )
        for _, part in sorted(found.items())
    ]


def calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance of what was believed from what was right, by tenths (ECE; Naeini et al. 2015)."""
    return sum(abs(one.believed - one.right) * one.count for one in found) / sum(one.count for one in found)


def areas(decided: Sequence[Decided]) -> list[Area]:
    """By the choice that was the likeliest; those first of which most are wrong."""
    counts = Counter(one.best for one in decided)
    wrong = Counter(one.best for one in decided if one.is_wrong)
    found = [Area(name, count, wrong[name]) for name, count in counts.items()]
    return sorted(found, key=lambda area: (-area.rate, -area.wrong, area.name))


def confusions(decided: Sequence[Decided]) -> list[tuple[str, str, int]]:
    """What was taken for what, and how often; the most frequent first."""
    pairs = Counter((one.label, one.best) for one in decided if one.is_wrong)
    return [(label, best, count) for (label, best), count in pairs.most_common(_NUM_EXAMPLES)]


def reliability_chart(found: Sequence[Bin]) -> Chart:
    """Believed against right; on the diagonal probabilities are as good as they claim."""
    chart = Chart(
        "Are the probabilities reliable?",
        "Decisions by the likeliest choice's probability, against the share that was right. A dot's area is how many.",
        "probability",
        "right",
    )
    draw_reliability(chart, found, "decisions of")
    return chart


def coverage_chart(decided: Sequence[Decided]) -> Chart:
    """The share of errors among the surest part, as the part grows."""
    chart = Chart(
        "Risk and coverage",
        "Answer only where the model is surest: how many of the answers are wrong. The dot is the threshold.",
        "answered",
        "of them wrong",
    )
    wrong = np.array([one.is_wrong for one in decided])
    risks = risk(np.array([1.0 - one.probability for one in decided]), wrong)
    top, size = max(0.05, float(risks.max())), len(decided)
    chart.line([(0, float(wrong.mean()) / top), (1, float(wrong.mean()) / top)], "guide")
    chart.line([((place + 1) / size, float(value) / top) for place, value in enumerate(risks)], "c0")
    answered = sum(one.is_answered for one in decided)
    if answered:
        share, rate = answered / size, float(risks[answered - 1])
        chart.dot(share, rate / top, 0.1, f"{percent(share)} answered, {_percent(rate)} of them wrong")
    chart.mark_x(1.0, percent)
    chart.mark_y(top, _percent)
    return chart


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _share(area: Area) -> str:
    return f"{area.wrong} ({_percent(area.rate)})"
