from __future__ import annotations

import numpy as np
import pytest

from paceline.bench.timing import BootstrapInterval, Contender, interleave, interval, ratio, resamples, self_ratio


def test_contenders_take_turns_and_are_reset() -> None:
    calls: list[str] = []
    both = [
        Contender("a", lambda: calls.append("a"), lambda: calls.append("reset")),
        Contender("b", lambda: calls.append("b")),
    ]
    samples = interleave(both, repeats=2)
    assert calls == ["a", "reset", "b"] * 3  # one untimed round, then two
    assert {name: len(times) for name, times in samples.items()} == {"a": 2, "b": 2}


def test_there_is_a_rest_before_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("time.sleep", calls.append)
    interleave([Contender(name, lambda: calls.append("turn")) for name in "ab"], repeats=1, rest=0.5)
    assert calls == [0.5, "turn"] * 4


def test_a_time_limit_leaves_three_rounds() -> None:
    assert len(interleave([Contender("a", lambda: None)], repeats=50, seconds=0.0)["a"]) == 3


def test_ratios_of_medians() -> None:
    exact = ratio([2.0, 2.0, 90.0], [1.0, 1.0, 1.0])
    assert exact.value == 2.0
    assert exact.low <= 2.0 <= exact.high
    assert self_ratio([1.0, 2.0, 1.0, 2.0]) == 0.5
    assert self_ratio([1.0]) is None


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    drawn = resamples(40)
    found = [interval(rng.normal(5.0, 1.0, 40)[drawn].mean(1)) for _ in range(400)]
    covered = np.mean([one.low <= 5.0 <= one.high for one in found])
    assert 0.90 < covered < 0.98  # 0.95 less what the bootstrap of 40 loses, four deviations to either side
    assert np.mean([one.high - one.low for one in found]) == pytest.approx(2 * 1.96 / 40**0.5, rel=0.05)


def test_resamples_are_the_same_every_time_and_within_range() -> None:
    drawn = resamples(7)
    assert drawn.shape == (1000, 7)
    assert (drawn == resamples(7)).all()
    assert set(np.unique(drawn)) == set(range(7))


def test_how_far_an_interval_reaches() -> None:
    assert BootstrapInterval(0.9, 1.3).farthest_from(1.0) == pytest.approx(0.3)
    assert BootstrapInterval(1.1, 1.2).farthest_from(1.0) == pytest.approx(0.2)
    assert BootstrapInterval(0.5, 1.2).farthest_from(1.0) == pytest.approx(0.5)
