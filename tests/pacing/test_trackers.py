"""Running estimates: quantiles are reached, outliers are shrugged off, old samples fade."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.pacing.costs import Quantile
from paceline.pacing.estimates import Mean

SAMPLES = {
    "uniform": lambda random, n: random.uniform(1.0, 3.0, n),
    "lognormal": lambda random, n: random.lognormal(-7.0, 0.5, n),
    "exponential": lambda random, n: random.exponential(20.0, n) + 1.0,
    "two speeds": lambda random, n: np.where(random.random(n) < 0.5, 1.0, 1.5) * random.lognormal(0.0, 0.05, n),
}


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_quantile_is_reached_from_above_and_from_below(name: str, share: float) -> None:
    samples = SAMPLES[name](np.random.default_rng(5), 4000)
    for start in (samples.min() / 9, samples.max() * 9):
        tracker, below = Quantile(float(start), share), []
        for sample in samples.tolist():
            below.append(sample < tracker.value)
            tracker.learn(sample)
        assert np.mean(below[1000:]) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("outlier", [1e9, 1e-9])
def test_an_outlier_moves_it_no_more_than_any_other_sample(outlier: float) -> None:
    tracker, usual = Quantile(1.0, 0.75), Quantile(1.0, 0.75)
    tracker.learn(outlier)
    usual.learn(1.001 if outlier > 1 else 0.999)
    assert tracker.value == usual.value
    assert abs(tracker.value - 1.0) <= Quantile.RATE


def test_a_guess_gives_way_to_the_first_sample_and_steps_shrink() -> None:
    tracker, moves = Quantile(5.0, 0.5, is_guess=True), []
    tracker.learn(0.002)
    assert tracker.value == 0.002
    for sample in [1e9, 1e-9] * 10:
        before = tracker.value
        tracker.learn(sample)
        moves.append(abs(tracker.value / before - 1.0))
    assert all(later <= before + 1e-9 for before, later in itertools.pairwise(moves))
    assert moves[0] == pytest.approx(0.35)
    assert moves[-1] == pytest.approx(Quantile.RATE / 2)


@pytest.mark.parametrize(("share", "up", "down"), [(0.5, 7, 7), (0.75, 4, 17), (0.25, 17, 4)])
def test_a_run_that_chance_would_hardly_give_is_a_change(share: float, up: int, down: int) -> None:
    for factor, limit in ((1000.0, up), (1e-3, down)):
        tracker = Quantile(1.0, share)
        samples = [factor * (1.0 + 0.1 * (number % 3)) for number in range(limit)]
        for sample in samples[:-1]:
            tracker.learn(sample)
        assert 0.4 < tracker.value < 2.0
        tracker.learn(samples[-1])
        assert tracker.value == (min(samples) if factor > 1.0 else max(samples))  # the nearest


def test_a_run_that_is_interrupted_is_none() -> None:
    tracker = Quantile(1.0, 0.75)
    for sample in [1000.0, 1000.0, 1000.0, 0.5] * 5:
        tracker.learn(sample)
    assert tracker.value < 3.0


@given(st.floats(1e-9, 1e3), st.sampled_from([0.25, 0.5, 0.75]), st.lists(st.floats(0.0, 1e6), max_size=200))
def test_it_stays_positive_and_finite(value: float, share: float, samples: list[float]) -> None:
    tracker = Quantile(value, share)
    for sample in samples:
        tracker.learn(sample)
    assert 0.0 < tracker.value < math.inf


def test_a_mean_forgets_by_its_factor() -> None:
    mean = Mean(prior=2.0, weight=4.0, keep=0.5)
    assert mean.value == 2.0
    mean.learn(10.0)
    assert (mean.total, mean.weight) == (0.5 * 8 + 10, 0.5 * 4 + 1)
    mean.learn(1.0)
    assert mean.value == (0.5 * 14 + 1) / (0.5 * 3 + 1)
    for _ in range(60):
        mean.learn(7.0)
    assert mean.value == pytest.approx(7.0)
