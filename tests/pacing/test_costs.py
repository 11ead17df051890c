"""What steps are estimated to cost: bounds that hold and follow, and measuring within its time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.pacing.costs import CostTable, ForwardCost, ascending
from paceline.pacing.measuring import _FAR, _NEAR, _ROUNDS, _SECONDS, completed, measure
from pacing.simulated import Clock

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16)


def table(slope: float = 1e-6) -> CostTable:
    """Rows 1, 2, 4, 8 at 10, 11, 13 and 17 ms, and more behind a context."""
    return CostTable({rows: ForwardCost(9e-3 + 1e-3 * rows, slope * rows) for rows in (8, 1, 4, 2)}, rest=1e-4)


@pytest.mark.parametrize(("rows", "padded"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_a_forward_costs_what_its_padded_rows_do(rows: int, padded: int) -> None:
    assert table().forward(rows, 500) == pytest.approx(9e-3 + 1e-3 * padded + 500e-6 * padded)


@pytest.mark.parametrize(("rows", "forwards"), [(9, 2), (16, 2), (17, 3), (25, 4)])
def test_more_rows_than_a_forward_has_take_several(rows: int, forwards: int) -> None:
    costs = table()
    assert costs.forward(rows, 0) == pytest.approx(forwards * 17e-3)
    costs.learn(rows, 0, 9.0)
    assert costs.forward(rows, 0) == pytest.approx(forwards * 17e-3)  # nothing was learnt: whose time was it?


def test_a_plain_step_is_a_forward_of_a_row_for_each_request_and_the_rest_for_each() -> None:
    assert table().plain(1, 100) == pytest.approx(10e-3 + 100e-6 + 1e-4)
    assert table().plain(3, 0) == pytest.approx(13e-3 + 3e-4)


def test_sizes_are_as_full_as_their_padding_allows() -> None:
    costs = table()
    assert costs.max_rows == 8
    assert costs.sizes(1, 8) == [1, 2, 4, 8]
    assert costs.sizes(2, 7) == [2, 4, 7]
    assert costs.sizes(3, 4) == [3, 4]


def test_bounds_enclose_the_middle_half_of_what_forwards_take() -> None:
    costs, random = table(), np.random.default_rng(3)
    over, under = [], []
    for _ in range(4000):
        rows = int(random.choice([1, 2, 4, 8]))
        seconds = costs.forwards[rows].at(200) * float(random.lognormal(0.1, 0.2))
        over.append(seconds > costs.forward(rows, 200))
        under.append(seconds < costs.plain(rows, 200) - rows * costs.rest)
        costs.learn(rows, 200, seconds)
        assert costs.forward(rows, 200) > 0
    assert np.mean(over[1000:]) == pytest.approx(0.25, abs=0.05)
    assert np.mean(under[1000:]) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("jump", [3.0, 0.4])
def test_after_a_jump_in_cost_all_row_counts_are_estimated_anew_within_a_hundred_samples(jump: float) -> None:
    costs, random = table(0.0), np.random.default_rng(1)
    for step in range(300):
        rows = int(random.choice([1, 8]))
        costs.learn(rows, 50, (9e-3 + 1e-3 * rows) * (jump if step >= 200 else 1.0) * float(random.lognormal(0, 0.02)))
    for rows in (1, 4, 8):  # 4 was never seen: a machine slows down as a whole
        assert costs.forward(rows, 50) == pytest.approx(jump * (9e-3 + 1e-3 * rows), rel=0.3)
        assert costs.forward(rows, 50) >= costs.plain(rows, 50) - rows * costs.rest


def test_one_row_count_that_is_dearer_than_it_was_measured_is_told_from_the_others() -> None:
    costs = table(0.0)
    for _ in range(400):
        for rows in (1, 2, 4):
            costs.learn(rows, 0, 9e-3 + 1e-3 * rows)
        costs.learn(8, 0, 2 * 17e-3)
    assert costs.forward(8, 0) == pytest.approx(2 * 17e-3, rel=0.1)
    assert costs.forward(1, 0) == pytest.approx(10e-3, rel=0.1)


def test_the_rest_of_a_step_is_learnt_from_its_first_sample_on() -> None:
    costs = table(0.0)
    costs.learn_rest(5e-3)
    assert costs.rest == 5e-3
    assert costs.plain(2, 0) == pytest.approx(11e-3 + 10e-3)


class Rehearsed:
    """A target whose forwards take what a function of rows and context says; the first of a kind takes longer."""

    def __init__(self, clock: Clock, seconds: Callable[[int, int], float], room: int = 10**6, counts=COUNTS) -> None:
        self.clock, self.seconds, self.room, self.row_counts = clock, seconds, room, counts
        self.ran: list[tuple[int, int]] = []

    def dry_run(self, num_rows: int, context: int) -> bool:
        if num_rows + context > self.room:
            return False
        is_first = (num_rows, context) not in self.ran
        self.ran.append((num_rows, context))
        self.clock.advance(self.seconds(num_rows, context) * (20 if is_first else 1))
        return True


def linear(rows: int, context: int) -> float:
    return 1e-4 * (9 + rows) + 1e-7 * rows * context


def test_what_is_measured_is_what_forwards_take_but_for_the_first() -> None:
    clock = Clock()
    costs = measure(Rehearsed(clock, linear), clock)
    assert tuple(costs) == COUNTS
    for rows, cost in costs.items():
        for context in (0, 32, 400, 5000):
            assert cost.at(context) == pytest.approx(linear(rows, context), rel=0.01)


@pytest.mark.parametrize("base", [1e-3, 0.02, 0.5, 8.0])
def test_measuring_ends_in_time_and_what_is_left_costs_as_the_next_larger_or_in_proportion(base: float) -> None:
    clock = Clock()
    target = Rehearsed(clock, lambda rows, context: base * (1 + rows / 4))
    target.ran = [(rows, context) for rows in COUNTS for context in (_NEAR, _FAR)]  # nothing is a first
    num_before = len(target.ran)
    costs = measure(target, clock)
    assert clock.now <= _SECONDS + (_ROUNDS + 1) * target.seconds(COUNTS[-1], 0) + 0.01
    measured = sorted({rows for rows, context in target.ran[num_before:]})
    assert measured[0] == 1
    assert tuple(costs) == COUNTS
    for rows in COUNTS:
        larger = [count for count in measured if count >= rows]
        expected = target.seconds(larger[0], 0) if larger else target.seconds(measured[-1], 0) * rows / measured[-1]
        assert costs[rows].at(500) == pytest.approx(expected, rel=0.01)


def test_powers_of_two_come_first() -> None:
    clock = Clock()
    target = Rehearsed(clock, lambda rows, context: 0.06)
    measure(target, clock)
    first = list(dict.fromkeys(rows for rows, _ in target.ran))
    assert first == [1, 2, 4, 8, 16][: len(first)]


def test_where_there_is_no_room_for_a_long_context_costs_do_not_grow_with_it() -> None:
    clock = Clock()
    costs = measure(Rehearsed(clock, linear, room=500), clock)
    assert all(cost.slope == 0.0 for cost in costs.values())
    assert costs[8].at(9999) == pytest.approx(linear(8, _NEAR), rel=0.01)


def test_row_counts_that_do_not_fit_are_not_taken_to_be_free() -> None:
    clock = Clock()
    costs = measure(Rehearsed(clock, linear, room=_NEAR + 6), clock)
    assert costs[4].at(0) == pytest.approx(linear(4, _NEAR), rel=0.01)
    assert costs[16].at(0) == pytest.approx(16 / 6 * linear(6, _NEAR), rel=0.01)
    tiny = measure(Rehearsed(clock, linear, room=2), clock)
    assert tiny[1].at(0) == pytest.approx(linear(1, 0), rel=0.01)
    assert tiny[16].at(0) == pytest.approx(16 * linear(1, 0), rel=0.01)


def test_a_context_that_makes_forwards_quicker_is_noise() -> None:
    clock = Clock()
    costs = measure(Rehearsed(clock, lambda rows, context: 1e-3 if context > 100 else 2e-3), clock)
    assert {cost.slope for cost in costs.values()} == {0.0}
    assert costs[1].at(0) == pytest.approx(2e-3, rel=0.01)


def guessed(keep: Callable[[dict[int, ForwardCost]], None] | None = None) -> CostTable:
    """Rows 1, 2, 4, 8 as in `table`, of which nothing is known."""
    return CostTable({rows: ForwardCost(9e-3 + 1e-3 * rows, 0.0) for rows in (1, 2, 4, 8)}, 1e-4, (), keep)


@pytest.mark.parametrize("factor", [0.05, 0.7, 3.0, 40.0])
def test_the_first_sample_takes_the_place_of_a_guess_and_scales_the_others(factor: float) -> None:
    costs = guessed()
    costs.learn(1, 0, factor * 10e-3)
    for rows in (1, 2, 4, 8):
        assert costs.forward(rows, 0) == pytest.approx(factor * (9e-3 + 1e-3 * rows))
    costs.learn(8, 0, factor * 34e-3)  # twice what it was guessed to be beside one row
    assert costs.forward(8, 0) == pytest.approx(factor * 34e-3)
    assert costs.forward(1, 0) == pytest.approx(factor * 10e-3)


def test_one_outlier_among_the_first_samples_moves_the_bounds_of_a_guess_no_further_than_the_others_allow() -> None:
    costs = guessed()
    for seconds in (80e-3, 10e-3, 10e-3, 10e-3, 10e-3, 10e-3, 10e-3, 10e-3):
        costs.learn(1, 0, seconds)
    assert costs.forward(1, 0) == pytest.approx(10e-3)
    assert costs.plain(1, 0) == pytest.approx(10e-3 + 1e-4)


def test_what_was_learnt_is_what_was_seen_alone() -> None:
    kept: list[dict[int, ForwardCost]] = []
    costs = guessed(kept.append)
    for _ in range(8):
        costs.learn(2, 0, 22e-3)
    assert [list(found) for found in kept] == [[2]]
    assert kept[0][2].base == pytest.approx(22e-3)


def test_what_was_learnt_since_is_kept_when_asked_if_it_rests_on_enough() -> None:
    kept: list[dict[int, ForwardCost]] = []
    costs = guessed(kept.append)
    for number in range(1, 12):
        costs.learn(1, 0, 10e-3)
        costs.keep()
        assert len(kept) == max(number - 7, 0) + (number >= 8)  # of itself at the 8th


ROWS = tuple(range(1, 13))


@given(st.lists(st.tuples(st.floats(1e-3, 1.0), st.sampled_from([1e-3, 1.0, 8.0])), min_size=1, max_size=8))
@settings(max_examples=60)
def test_ascending_values_are_the_nearest_by_weighted_absolute_errors(said: list[tuple[float, float]]) -> None:
    values, weights = zip(*said, strict=True)
    found = ascending(values, weights)
    assert found == sorted(found)
    # Some nearest ones consist of values that were given, so it suffices to go through these: a dynamic program.
    levels = sorted(set(values))
    best = [0.0] * len(levels)  # least errors so far with the last value at most this level
    for value, weight in said:
        ending = [least + weight * abs(level - value) for level, least in zip(levels, best, strict=True)]
        best = list(accumulate(ending, min))
    errors = sum(weight * abs(one - value) for one, (value, weight) in zip(found, said, strict=True))
    assert errors == pytest.approx(best[-1])


@given(st.integers(0, 2**32), st.floats(1.0, 1.2), st.sampled_from(ROWS), st.floats(2.0, 20.0), st.booleans())
@settings(max_examples=25)
def test_one_disturbed_forward_makes_no_row_count_dear(
    seed: int, row: float, count: int, times: float, is_kept: bool
) -> None:
    """Nor does it make others look cheaper than they are: rows that were seen keep what was seen of them."""
    random = np.random.default_rng(seed)
    truth = {rows: 0.02 * row ** (rows - 1) for rows in ROWS}
    known = {count: ForwardCost(truth[count] * times, 0.0)} if is_kept else {}
    first = {1: ForwardCost(truth[1], 0.0)} | known
    costs = CostTable(completed(first, ROWS), known=known)
    order = random.permutation([rows for rows in ROWS for _ in range(8) if rows != count]).tolist()
    for rows in order:
        costs.learn(rows, 0, truth[rows] * random.uniform(1.0, 1.02))
    if not is_kept:
        costs.learn(count, 0, truth[count] * times)
    for rows in ROWS[:-1]:  # beyond the last nothing contradicts it
        assert costs.forward(rows, 0) <= truth[rows + 1] * 1.25
    for rows in set(ROWS) - {count}:
        assert costs.forward(rows, 0) >= truth[rows] * 0.85


def test_a_step_up_that_was_seen_stays() -> None:
    costs = CostTable(completed({1: ForwardCost(0.02, 0.0)}, ROWS), known=())
    for rows in (1, 2, 9, 4, 12, 1, 2, 4):
        costs.learn(rows, 0, 0.02 if rows < 9 else 0.05)
    assert costs.forward(4, 0) == pytest.approx(0.02, rel=0.1)
    assert costs.forward(9, 0) == pytest.approx(0.05, rel=0.1)
