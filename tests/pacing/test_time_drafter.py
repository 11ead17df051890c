"""Drafters are timed when they join, on made-up requests that leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest

from law.support import prepared, registered
from paceline.pacing.estimates import DrafterStatistics
from paceline.pacing.measuring import time_drafter
from paceline.testing import ScriptedDrafter, ScriptedTarget
from pacing.simulated import Clock, TimedDrafter

VOCAB = 50
TARGET = ScriptedTarget(lambda history: np.zeros(VOCAB), VOCAB)
GUESS = 7.0


def timed(drafter) -> DrafterStatistics:
    statistics = DrafterStatistics(GUESS)
    time_drafter(drafter, TARGET, 1.0, statistics, Clock())
    return statistics


@pytest.mark.parametrize("num_levels", [1, 3])
def test_what_a_drafter_takes_is_known_before_its_first_request(num_levels: int) -> None:
    clock, statistics = Clock(), DrafterStatistics(GUESS)
    drafter = TimedDrafter("timed", lambda request, budget: [1] * budget, clock, 3e-3, num_levels)
    time_drafter(drafter, TARGET, 1.0, statistics, clock)
    assert 2.9e-3 <= statistics.first_seconds(1) < 4.5e-3  # an upper bound, of few samples
    assert statistics.next_level.value == pytest.approx(3e-3 if num_levels > 1 else 0.0, rel=0.5, abs=1e-4)
    assert not drafter.active


@pytest.mark.parametrize(("plain", "num_forwards"), [(0.001, 9), (0.5, 0)])
def test_each_proposal_comes_after_a_forward_where_that_counts(plain: float, num_forwards: int) -> None:
    ran: list[int] = []
    target = ScriptedTarget(lambda history: np.zeros(VOCAB), VOCAB)
    target.dry_run = lambda rows, context: bool(ran.append(rows)) or True  # type: ignore[method-assign]
    drafter = ScriptedDrafter(lambda request, budget: bool(ran.append(0)) or [1] * budget)
    time_drafter(drafter, target, plain, DrafterStatistics(GUESS), Clock())
    assert ran == ([1, 0] * num_forwards or [0] * 9)


class Silent(ScriptedDrafter):
    def start(self, request) -> bool:
        super().start(request)
        return False


def failing(request, budget):
    raise RuntimeError("not today")


@pytest.mark.parametrize("drafter", [Silent(), ScriptedDrafter(failing)], ids=["silent", "failing"])
def test_who_has_nothing_to_say_or_fails_stays_as_it_was_estimated(drafter: ScriptedDrafter) -> None:
    assert timed(drafter).first_seconds(1) == GUESS
    assert not drafter.active


@pytest.mark.parametrize("name", registered())
def test_timing_leaves_nothing_behind_in_a_registered_drafter(name: str) -> None:
    drafter = prepared(name, VOCAB)
    for _ in range(2):  # the second time for those who would draft from the first
        timed(drafter)
    before = {key: len(value) for key, value in vars(drafter).items() if isinstance(value, dict)}
    timed(drafter)
    assert {key: len(value) for key, value in vars(drafter).items() if isinstance(value, dict)} == before
    open_requests = [key for value in vars(drafter).values() if isinstance(value, dict) for key in value]
    assert not [key for key in open_requests if isinstance(key, int)]
