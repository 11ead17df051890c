"""The page of decisions: its figures are those of the definitions, and hostile texts stay texts."""

from __future__ import annotations

import pytest

from paceline.deciding.labelled import Decided
from paceline.report import decisions_page
from paceline.report.decided import Area, areas, bins, calibration_error, confusions, facts
from report.test_page import HOSTILE, Reader

DECIDED = [
    Decided("p", {"a": 0.95, "b": 0.05}, "a", 0.6),
    Decided("q", {"a": 0.9, "b": 0.1}, "b", 0.6),
    Decided("r", {"a": 0.4, "b": 0.6}, "b", 0.6),
    Decided("s", {"a": 0.55, "b": 0.45}, "b", 0.6),
]


def test_figures_are_those_of_the_definitions() -> None:
    assert [(round(one.believed, 3), one.right, one.count) for one in bins(DECIDED)] == [
        (0.55, 0.0, 1),
        (0.6, 1.0, 1),
        (0.925, 0.5, 2),
    ]
    assert calibration_error(bins(DECIDED)) == pytest.approx((0.55 + 0.4 + 2 * 0.425) / 4)
    assert areas(DECIDED) == [Area("a", 3, 2), Area("b", 1, 0)]
    assert confusions(DECIDED) == [("b", "a", 2)]
    told = dict(facts(DECIDED))
    assert told["wrong if all are answered"] == "2 (50 %)"
    assert told["answered at the threshold"] == "3 (75 %)"
    assert told["wrong among these"] == "1 (33.3 %)"


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    hostile = [Decided(text, {text: 0.9, "b": 0.1}, "b", 1.0) for text in HOSTILE]
    for decided in (DECIDED, hostile, DECIDED[:1]):
        read = Reader(decisions_page(decided))
        assert not read.of("script")
        assert not read.of("img")
        assert len(read.of("svg")) == 2
        assert [link["href"] for link in read.of("link")] == ["data:,"]
