"""When a drafter is due, what asking it is believed to take, and when the balance will cover that."""

from __future__ import annotations

import pytest

from paceline.pacing.growth import NOTHING, Foresight
from paceline.pacing.guard import Account, Bill
from paceline.pacing.pace import _NEVER, Experience, Pace
from paceline.pacing.worth import DrafterCost, Habit, fresh_worth
from paceline.testing import ScriptedDrafter
from pacing.simulated import request_of

PLAIN = 1e-2


def pace_of(experience: Experience | None = None) -> Pace:
    return Pace(experience or Experience(PLAIN / 2), Account(0.02, PLAIN), PLAIN)


def taught(cost: DrafterCost, first: float, later: float = 0.0, num_later: int = 0, unread: int = 1) -> DrafterCost:
    for _ in range(30):
        cost.learn(unread, first, later, num_later)
    return cost


def test_the_first_proposal_is_left_out_and_a_guess_stands_until_the_second() -> None:
    cost = DrafterCost(3e-3)
    assert cost.asking(1) == 3e-3
    cost.learn(1, 9.0, 0.0, 0)
    assert cost.asking(1) == 3e-3
    cost.learn(1, 1e-3, 0.0, 0)
    assert cost.asking(1) == 1e-3


def test_reading_a_long_text_is_told_from_proposing() -> None:
    cost = taught(DrafterCost(3e-3), 1e-3)
    taught(cost, 1e-3 + 500 * 2e-5, unread=500)
    assert cost.reading(7) == 0.0
    assert cost.reading(1000) == pytest.approx(1000 * 2e-5, rel=0.1)
    assert cost.asking(1) == pytest.approx(1e-3, rel=0.1)
    assert cost.asking(1000) == pytest.approx(1e-3 + 1000 * 2e-5, rel=0.1)


def test_further_stages_cost_what_each_took_and_are_part_of_what_is_usual() -> None:
    cost = taught(DrafterCost(3e-3), 1e-3, later=6e-3, num_later=3)
    assert cost.more.value == pytest.approx(2e-3, rel=0.1)
    assert cost.usual == pytest.approx(7e-3, rel=0.1)
    assert cost.asking(1) == pytest.approx(1e-3, rel=0.1)


def test_a_habit_starts_from_what_all_requests_know_and_follows_its_own() -> None:
    shared = fresh_worth()
    first = Habit(shared)
    assert first.worth == 1.0
    for _ in range(100):
        first.learn(5.0)
    second = Habit(shared)
    assert second.worth == pytest.approx(5.0, abs=0.5)
    for _ in range(12):
        second.learn(0.0)
    assert second.worth < 1.5
    assert first.worth == pytest.approx(5.0, abs=0.1)


def due(
    worth: float, cost: float, coverage: float = 0.0, foreseen: float = 9.0, share: float = 1e-4, asked_at: int = 0
) -> int:
    experience, drafter = Experience(PLAIN / 2), ScriptedDrafter()
    pace = pace_of(experience)
    habit, prices = pace.habit(drafter)
    taught(prices, cost)
    for _ in range(200):
        habit.learn(worth)
    request = request_of(5, 400)
    habit.asked_at, habit.read = asked_at, len(request.tokens)
    return pace.due(request, drafter, Foresight(coverage, foreseen), share)


def test_who_pays_is_due_at_once_and_who_does_not_is_due_seldom() -> None:
    assert due(worth=2.0, cost=1e-2) == 0
    assert due(worth=0.5, cost=1e-2, asked_at=7) == pytest.approx(7 + 100, abs=8)  # 1e-2 s at 1e-4 s per token
    assert due(worth=0.5, cost=4e-3) == 0
    assert due(worth=0.5, cost=4e-3, coverage=0.5) > 0  # half of it others have foreseen
    assert due(worth=2.5, cost=4e-3, coverage=1.0, foreseen=1.5) == 0  # but it looks a token further than they
    assert due(worth=2.5, cost=4e-3, coverage=1.0, foreseen=2.4) > 0
    assert due(worth=0.5, cost=1e-2, share=0.0, asked_at=3) >= _NEVER


def test_a_long_text_is_read_only_for_an_output_that_is_long_enough() -> None:
    def due_after(num_unread: int, max_tokens: int) -> int:
        experience, drafter = Experience(PLAIN / 2), ScriptedDrafter()
        pace = pace_of(experience)
        _, cost = pace.habit(drafter)
        taught(cost, 1e-4)
        taught(cost, 1e-4 + 1000 * 1e-4, unread=1000)
        request = request_of(5, max_tokens)
        request.tokens[:0] = [1] * num_unread
        request.num_prompt_tokens += num_unread
        return pace.due(request, drafter, NOTHING, 1e-4)

    assert due_after(1000, 400) == 0
    assert due_after(1000, 8) > 8


def test_a_price_is_affordable_when_the_balance_has_grown_to_it() -> None:
    pace, request = pace_of(), request_of(5, 400)
    assert pace.account.balance == pytest.approx(2e-2)
    assert pace.affordable(request, 1e-2, 1e-4) == 0
    assert pace.affordable(request, 3e-2, 1e-4) == pytest.approx(1 + 100, abs=1)
    assert pace.affordable(request, 3e-2, 0.0) >= _NEVER
    pace.account.book(Bill(elapsed=2e-2, believed=2e-2, looking_on=0.0, plain=0.0))
    assert pace.affordable(request, 1e-2, 1e-4) == pytest.approx(1 + 100, abs=1)


def test_a_token_saves_what_tokens_take_at_the_present_rate() -> None:
    pace = pace_of()
    assert pace.seconds_per_token == pytest.approx(PLAIN)
    for _ in range(100):
        pace.learn_rate(2e-2, 5)
    assert pace.seconds_per_token == pytest.approx(4e-3, rel=0.05)


def test_nodes_asked_for_are_twice_what_was_accepted_lately_and_never_few() -> None:
    pace = pace_of()
    for _ in range(20):
        pace.learn_reach(5, 0)
    assert pace.reach <= 9
    pace.learn_reach(9, 9)
    assert pace.reach == 26
    pace.learn_reach(0, 0)  # a step without drafts says nothing
    assert pace.reach == 26
