from __future__ import annotations

import numpy as np
import pytest

from paceline.doctor.costs import MeasuredCosts
from paceline.doctor.prediction import Interval, predict
from paceline.doctor.replay import Replayed
from paceline.engine.stats import Stats
from paceline.pacing import ForwardCost

EXACT = MeasuredCosts({1: ForwardCost(1.0, 0.0), 8: ForwardCost(2.0, 0.0)}, (1, 8), np.ones((5, 2)))


def replayed(steps: int, rows: int, emitted: int, accepted: int, host: float = 0.0) -> Replayed:
    stats = Stats(
        num_emitted_tokens=emitted,
        num_steps=steps,
        num_draft_tokens=steps * (rows - 1),
        num_accepted_draft_tokens=accepted,
    )
    return Replayed(((rows, 10),) * steps, host, stats)


def test_a_prediction_is_of_all_prompts_together() -> None:
    plain = [replayed(12, 1, 12, 0), replayed(8, 1, 8, 0)]
    paced = [[replayed(3, 8, 12, 9), replayed(2, 8, 8, 6)]]
    found = predict(plain, paced, EXACT)
    assert (found.num_prompts, found.num_tokens) == (2, 20)
    assert found.speedup.value == pytest.approx(20 / 10)
    assert found.mean_acceptance_length == Interval(4.0, 4.0, 4.0)
    assert found.acceptance_rate.value == pytest.approx(15 / 35)
    assert found.host_share == 0.0


def test_prompts_that_differ_widen_the_intervals() -> None:
    plain = [replayed(12, 1, 12, 0) for _ in range(4)]
    alike = [[replayed(6, 1, 12, 0) for _ in range(4)]]
    unlike = [[replayed(steps, 1, 12, 0) for steps in (3, 12, 6, 4)]]
    narrow, wide = (predict(plain, paced, EXACT).speedup for paced in (alike, unlike))
    assert narrow.half_width < 0.12  # the drift alone
    assert wide.low < 1.4 < 3.0 < wide.high


def test_turns_that_differ_widen_the_intervals() -> None:
    plain = [replayed(12, 1, 12, 0) for _ in range(2)]
    paced = [[replayed(steps, 1, 12, 0) for _ in range(2)] for steps in (3, 4, 6)]
    found = predict(plain, paced, EXACT)
    assert found.mean_acceptance_length.low < 2.5
    assert found.mean_acceptance_length.high > 3.5


def test_rounds_that_differ_widen_the_speed_up_alone() -> None:
    scales = np.ones((5, 2))
    scales[:, 1] = (0.5, 1.0, 1.0, 1.0, 2.0)
    costs = MeasuredCosts(EXACT.table, EXACT.counts, scales)
    plain, paced = [replayed(12, 1, 12, 0)] * 3, [[replayed(3, 8, 12, 9)] * 3]
    found = predict(plain, paced, costs)
    assert found.speedup.low < 1.1
    assert found.speedup.high > 3.5
    assert found.mean_acceptance_length.half_width == 0.0


def test_no_drafts_are_no_acceptance() -> None:
    plain = [replayed(4, 1, 4, 0, host=4.0)]
    found = predict(plain, [plain], EXACT)
    assert found.acceptance_rate == Interval(0.0, 0.0, 0.0)
    assert found.speedup.value == 1.0
    assert found.host_share == pytest.approx(0.5)


def test_an_interval_holds_what_is_within() -> None:
    interval = Interval(2.0, 1.5, 2.5)
    assert [interval.holds(figure) for figure in (1.49, 1.5, 2.5, 2.51)] == [False, True, True, False]
    assert interval.half_width == 0.25
    assert Interval(0.0, 0.0, 0.0).half_width == 0.0
