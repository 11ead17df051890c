"""Scores against their definitions, and against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from paceline.report.scoring import auroc, risk, score

cases = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0]), st.booleans()), min_size=1, max_size=30)


@given(cases)
def test_auroc_is_the_share_of_pairs_in_the_right_order(pairs) -> None:
    values, errors = np.array([v for v, _ in pairs]), np.array([e for _, e in pairs])
    wrong, right = values[errors], values[~errors]
    if not wrong.size or not right.size:
        assert math.isnan(auroc(values, errors))
        return
    above = (wrong[:, None] > right).mean() + (wrong[:, None] == right).mean() / 2
    assert auroc(values, errors) == pytest.approx(above)
    assert auroc(values, errors) == pytest.approx(mannwhitneyu(wrong, right)[0] / (wrong.size * right.size))


@given(cases)
def test_risk_ends_at_the_error_rate_and_ties_count_as_their_mean(pairs) -> None:
    values, errors = np.array([v for v, _ in pairs]), np.array([e for _, e in pairs])
    shares = risk(values, errors)
    assert shares[-1] == pytest.approx(errors.mean())
    rng = np.random.default_rng(0)
    for k in (1, len(pairs)):
        kept = [
            errors[np.lexsort((rng.random(len(pairs)), values))][:k].mean()
            for _ in range(1 if k == len(pairs) else 400)
        ]
        assert shares[k - 1] == pytest.approx(np.mean(kept), abs=0.15)


def test_risk_of_what_knows_every_error_by_example() -> None:
    assert risk(np.array([1.0, 1.0, 2.0, 3.0]), np.array([False, False, True, True])).tolist() == [0, 0, 1 / 3, 1 / 2]


def test_a_score_is_repeatable_and_its_interval_holds_it() -> None:
    rng = np.random.default_rng(1)
    errors = rng.random(200) < 0.3
    values = rng.normal(size=200) + errors
    groups = np.repeat(np.arange(50), 4)
    first, second = (score("entropy", values.tolist(), errors.tolist(), groups.tolist()) for _ in range(2))
    assert first == second
    low, high = first.interval
    assert 0.5 < low < first.auroc < high < 1.0
    assert first.curve[-1] == (1.0, pytest.approx(errors.mean()))
    assert first.half_risk == first.curve[99][1]


def test_scores_without_errors_or_without_cases_are_no_numbers() -> None:
    assert math.isnan(score("entropy", [1.0, 2.0], [False, False], [0, 1]).auroc)
    assert math.isnan(score("entropy", [], [], []).aurc)


def test_cases_that_belong_together_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    errors = np.repeat(rng.random(20) < 0.5, 10)
    values = np.repeat(rng.normal(size=20), 10) + 0.5 * errors
    alone = score("entropy", values.tolist(), errors.tolist(), list(range(200))).interval
    together = score("entropy", values.tolist(), errors.tolist(), np.repeat(np.arange(20), 10).tolist()).interval
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])
