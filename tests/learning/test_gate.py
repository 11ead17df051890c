"""The gate keeps its promise on streams that are made to break it, is quick where a gain is real; flaws are caught."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom

from paceline.learning.betting import MOST, Bet
from paceline.learning.detector import Brake, Detector
from paceline.learning.gate import Gate, level, predicted_anchors

BOUND, MARGIN, ALPHA = 7.0, 0.1, 0.05
Stream = Callable[[np.random.Generator, int], NDArray[np.float64]]
GateOf = Callable[[int], Gate]


def even(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Independent, the mean at the margin itself."""
    return rng.choice([-1.0, 0.0, 1.0], count, p=[0.25, 0.4, 0.35])


def drifting(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The mean comes up to the margin now and then, and never above it."""
    means = MARGIN - 0.5 * (1.0 - np.cos(np.arange(count) / 7.0)) * rng.uniform(0.0, 0.3)
    return means + rng.choice([-2.0, 2.0], count)


def bursts(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Differences that follow each other are of one size: all small, or all large."""
    scale = np.repeat(rng.choice([0.1, 4.0], count // 10 + 1, p=[0.7, 0.3]), 10)[:count]
    return MARGIN + scale * rng.choice([-1.0, 1.0], count)


def anchors_of_requests(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Twelve anchors of each request (count, 12): half of the requests gain and half lose, all of their anchors."""
    sides = rng.choice([-1.0, 1.0], (count, 1))
    return MARGIN + sides + rng.normal(size=(count, 12)).clip(-3, 3)


def requests(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The same, a difference for each request."""
    return anchors_of_requests(rng, count).mean(1)


def anchors(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The same, anchor by anchor."""
    return anchors_of_requests(rng, count).ravel()


def lottery(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Small gains nearly always, a great loss seldom: what a few differences cannot show."""
    lost = rng.random(count) < 0.05
    return np.where(lost, -BOUND, (MARGIN + 0.05 * BOUND) / 0.95)


STREAMS = (even, drifting, bursts, lottery, requests)


def lives_with_a_false_promotion(
    gate_of: GateOf, stream: Stream, lives: int = 120, attempts: int = 12, length: int = 60
) -> int:
    """How many of some lives, of so many candidates each that do not pay, promote one of them."""
    rng = np.random.default_rng(1)
    return sum(
        any(is_promoted(gate_of(attempt), stream(rng, length)) for attempt in range(1, attempts + 1))
        for _ in range(lives)
    )


def is_promoted(gate: Gate, differences: NDArray[np.float64]) -> bool:
    """Whether it ever is; the gate is asked after each difference."""
    for difference in differences.tolist():
        gate.see(difference)
        if gate.is_passed:
            return True
    return False


def is_within(count: int, trials: int) -> bool:
    """Whether so many of the trials are what a probability of `ALPHA` gives at most, but once in a thousand times."""
    return bool(binom.sf(count - 1, trials, ALPHA) > 1e-3)


def sound(attempt: int) -> Gate:
    return Gate(attempt, BOUND, MARGIN, ALPHA)


@pytest.mark.parametrize("stream", STREAMS)
def test_false_promotions_are_rarer_than_alpha(stream: Stream) -> None:
    assert is_within(lives_with_a_false_promotion(sound, stream), 120)


def test_a_gate_that_bets_on_what_it_sees_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def see(self: Bet, difference: float) -> None:
        self.log_wealth += math.log1p(MOST * max(self._scaled(difference), 0.0))

    monkeypatch.setattr(Bet, "see", see)
    monkeypatch.setattr(Gate, "is_blocked", False)
    assert not is_within(lives_with_a_false_promotion(sound, bursts), 120)


def test_a_gate_that_takes_anchors_of_a_request_for_independent_is_caught() -> None:
    assert not is_within(lives_with_a_false_promotion(sound, anchors, attempts=3), 120)


def is_fair(bet: Bet) -> bool:
    """Whether an even chance of a step up or down leaves its wealth what it is, on average, whatever came before."""
    up, down = copy.deepcopy(bet), copy.deepcopy(bet)
    up.see(MARGIN + 3.0)
    down.see(MARGIN - 3.0)
    return math.exp(up.log_wealth) + math.exp(down.log_wealth) == pytest.approx(2.0 * math.exp(bet.log_wealth))


@given(st.lists(st.floats(-BOUND, BOUND), max_size=30))
@settings(max_examples=30)
def test_a_bet_is_fair_at_its_margin(history: list[float]) -> None:
    bet = Bet(BOUND, MARGIN)
    for difference in history:
        bet.see(difference)
    assert is_fair(bet)


def test_a_gate_that_stakes_by_what_comes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fault, hidden: the stake's mean has the difference in it that it is bet on."""

    def see(self: Bet, difference: float) -> None:
        scaled = self._scaled(difference)
        self._sum += scaled
        self._squares += scaled * scaled
        self.num_differences += 1
        self.log_wealth += math.log1p(self.stake * scaled)

    monkeypatch.setattr(Bet, "see", see)
    assert not is_fair(Bet(BOUND, MARGIN))


def test_a_gate_that_gives_each_candidate_all_of_alpha_is_caught() -> None:
    count = lives_with_a_false_promotion(lambda _: sound(1), bursts, attempts=40)
    assert not is_within(count, 120)


def test_a_gate_without_its_margin_is_caught() -> None:
    count = lives_with_a_false_promotion(lambda k: Gate(k, BOUND, 0.0, ALPHA), even, length=400, attempts=3)
    assert not is_within(count, 120)


def test_the_levels_of_all_candidates_sum_to_alpha() -> None:
    assert sum(level(k, 0.03) for k in range(1, 100_000)) == pytest.approx(0.03, rel=1e-4)


@pytest.mark.parametrize(("gain", "deviation", "bound"), [(0.3, 1.0, 7.0), (1.0, 1.5, 7.0), (0.01, 0.15, 1.0)])
def test_a_gain_is_found_within_the_predicted_number_of_anchors(gain: float, deviation: float, bound: float) -> None:
    """Half of the times within 1.5 times the prediction, which knows the best stakes; nine times in ten within 3."""
    predicted = predicted_anchors(gain, deviation, bound)
    took = []
    for seed in range(20):
        gate = Gate(1, bound, 0.0)
        steps = np.random.default_rng(seed).choice([-deviation, deviation], int(3.0 * predicted)) + gain
        took.append(next((i for i, step in enumerate(steps.tolist()) if gate.see(step) or gate.is_passed), math.inf))
    assert np.median(took) < 1.5 * predicted
    assert np.mean(np.array(took) < 3.0 * predicted) >= 0.9


def test_what_remains_is_foretold() -> None:
    gate = Gate(1, BOUND, 0.0)
    assert gate.remaining == math.inf
    for step in np.random.default_rng(0).normal(0.5, 1.0, 60).clip(-7, 7).tolist():
        gate.see(step)
    foretold = gate.num_differences + gate.remaining
    assert foretold == pytest.approx(predicted_anchors(0.5, 1.0, BOUND), rel=0.6)


def test_a_candidate_that_gains_by_the_mixture_alone_is_held_up() -> None:
    """Simpson's trap: nine tenths of the traffic gain, and one tenant loses."""
    rng = np.random.default_rng(3)
    blind, seeing = Gate(1, BOUND, MARGIN), Gate(1, BOUND, MARGIN)
    for is_rare in (rng.random(600) < 0.1).tolist():
        difference = float(rng.choice([-1.0, 1.0])) + (-1.5 if is_rare else 0.8)
        blind.see(difference)
        seeing.see(difference, "rare" if is_rare else "frequent")
    assert blind.is_passed
    assert seeing.log_wealth == blind.log_wealth
    assert seeing.is_blocked
    assert not seeing.is_passed


def test_no_stratum_is_alarmed_without_a_loss() -> None:
    gate = Gate(1, BOUND, MARGIN)
    for i, step in enumerate(np.random.default_rng(5).choice([-1.0, 1.0], 2000).tolist()):
        gate.see(step, f"tenant {i % 100}")
    assert not gate.is_blocked


def test_differences_out_of_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"margin is 7\.0; allowed: above -7\.0 and below 7\.0"):
        Bet(7.0, 7.0)
    for wrong in (7.5, -8.0, math.nan):
        with pytest.raises(ValueError, match="the difference is"):
            Bet(7.0).see(wrong)


def test_a_detector_raises_few_false_alarms() -> None:
    """Runs on an incumbent as bad as the margin allows last 1 / alpha on average; that bounds alarms within a third."""
    alpha, runs = 0.01, 200
    rng, alarms = np.random.default_rng(7), 0
    for _ in range(runs):
        detector = Detector(BOUND, MARGIN, alpha)
        for step in bursts(rng, 33).tolist():
            detector.see(step)
            if detector.is_alarmed:
                alarms += 1
                break
    assert binom.sf(alarms - 1, runs, 0.33) > 1e-3


def test_a_detector_finds_a_change_that_comes_late() -> None:
    rng, detector = np.random.default_rng(8), Detector(BOUND, MARGIN)
    for step in (rng.choice([-1.0, 1.0], 1000) - 0.3).tolist():
        detector.see(step)
    assert not detector.is_alarmed
    took = next(
        i for i, step in enumerate(rng.choice([-1.0, 1.0], 200) + 1.0) if detector.see(step) or detector.is_alarmed
    )
    assert took < 76  # what the best stake would take


def test_the_brake_takes_a_whole_window() -> None:
    brake = Brake(belief=0.6)
    for _ in range(Brake.WINDOW - 1):
        brake.see(0.1)
    assert not brake.is_pulled
    brake.see(0.1)
    assert brake.is_pulled
    for _ in range(Brake.WINDOW):
        brake.see(0.31)
    assert not brake.is_pulled
