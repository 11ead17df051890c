"""When a drafter is due, what asking it is estimated to take, and when the balance will cover that."""

from __future__ import annotations

import pytest

from paceline.engine.request import Request
from paceline.engine.tree import TreeBuilder
from paceline.pacing.candidates import Candidates
from paceline.pacing.estimates import (
    _NEVER,
    DrafterState,
    DrafterStatistics,
    RequestState,
)
from paceline.pacing.success_counts import SHARED_MEMORY, SuccessCounts
from paceline.testing import ScriptedDrafter
from pacing.simulated import request_of

PLAIN = 1e-2


def state_of(request: Request | None = None) -> RequestState:
    counts, statistics = SuccessCounts(SHARED_MEMORY), {ScriptedDrafter.name: DrafterStatistics(PLAIN / 2)}
    return RequestState(request or request_of(5, 400), PLAIN, counts, statistics)


def taught(cost: DrafterStatistics, seconds: float, depth: int = 1, unread: int = 1) -> DrafterStatistics:
    for _ in range(30):
        cost.learn_cost(unread, depth, seconds)
    return cost


def test_the_first_proposal_is_left_out_and_a_guess_stands_until_the_second() -> None:
    cost = DrafterStatistics(3e-3)
    assert cost.first_seconds(1) == 3e-3
    cost.learn_cost(1, 1, 9.0)
    assert cost.first_seconds(1) == 3e-3
    cost.learn_cost(1, 0, 1e-3)
    assert cost.first_seconds(1) == 1e-3


def test_reading_a_long_text_is_told_from_proposing() -> None:
    cost = taught(DrafterStatistics(3e-3), 1e-3)
    taught(cost, 1e-3 + 500 * 2e-5, unread=500)
    assert cost.reading_seconds(7) == 0.0
    assert cost.reading_seconds(1000) == pytest.approx(1000 * 2e-5, rel=0.1)
    assert cost.first_seconds(1) == pytest.approx(1e-3, rel=0.1)
    assert cost.first_seconds(1000) == pytest.approx(1e-3 + 1000 * 2e-5, rel=0.1)


def test_further_levels_cost_what_each_took_and_are_part_of_what_is_usual() -> None:
    cost = taught(taught(DrafterStatistics(3e-3), 1e-3), 7e-3, depth=4)
    assert cost.next_level.value == pytest.approx(2e-3, rel=0.1)
    assert cost.usual_seconds == pytest.approx(7e-3, rel=0.1)
    assert cost.first_seconds(1) == pytest.approx(1e-3, rel=0.1)


def test_a_deep_proposal_that_took_less_than_one_level_says_that_a_level_takes_less() -> None:
    cost = taught(DrafterStatistics(3e-3), 1e-3, depth=16)
    assert cost.first_seconds(1) == pytest.approx(1e-3, rel=0.1)
    assert cost.first_seconds(1) + 15 * cost.next_level.value == pytest.approx(1e-3, rel=0.1)


def test_a_request_starts_from_what_all_requests_know_of_a_drafter_and_follows_its_own() -> None:
    shared = DrafterStatistics(PLAIN)
    first = DrafterState(shared)
    assert first.expected_tokens == 1.0
    for _ in range(100):
        first.learn(5.0, 10.0)
    second = DrafterState(shared)
    assert second.expected_tokens == pytest.approx(5.0, abs=0.5)
    for _ in range(12):
        second.learn(0.0, 0.0)
    assert second.expected_tokens < 1.5
    assert first.expected_tokens == pytest.approx(5.0, abs=0.1)
    assert first.calibration == pytest.approx(0.5, abs=0.01)
    assert 0.9 < second.calibration < 1.1


def due(
    tokens: float, cost: float, others: tuple[float, ...] = (), probe_seconds: float = 1e-4, asked_at: int = 0
) -> int:
    """When a drafter is due that brings so many tokens; `others` propose a chain of these probabilities before."""
    state, drafter = state_of(), ScriptedDrafter()
    of_drafter = state.drafter(drafter)
    taught(of_drafter.shared, cost)
    for _ in range(200):
        of_drafter.learn(tokens, tokens)
    of_drafter.asked_at, of_drafter.num_read = asked_at, len(state.request.tokens)
    candidates, builder = Candidates(state.counts, 64, 64), TreeBuilder("others")
    for depth, probability in enumerate(others):
        builder.add(depth - 1, 1, probability, depth)
    candidates.add(ScriptedDrafter(), builder.build())
    return state.due(of_drafter, candidates.new_tokens(of_drafter.expected_tokens), probe_seconds)


def test_who_pays_is_due_at_once_and_who_does_not_is_due_seldom() -> None:
    assert due(tokens=2.0, cost=1e-2) == 0
    assert due(tokens=0.5, cost=1e-2, asked_at=7) == pytest.approx(7 + 100, abs=8)  # 1e-2 s at 1e-4 s per token
    assert due(tokens=0.5, cost=4e-3) == 0
    assert due(tokens=0.5, cost=4e-3, others=(0.5, 1.0, 1.0)) > 0  # half of it others have proposed
    assert due(tokens=2.5, cost=4e-3, others=(1.0, 0.5)) == 0  # but it looks a token further than they
    assert due(tokens=2.5, cost=4e-3, others=(1.0, 1.0, 0.4)) > 0
    assert due(tokens=0.5, cost=1e-2, probe_seconds=0.0, asked_at=3) >= _NEVER
    state = state_of()
    taught(state.drafter(ScriptedDrafter()).shared, 4e-3)
    known = state.drafter(ScriptedDrafter())
    assert state.due(known, 0.5, 1e-4) == 0 < state.due(known, 0.5, 1e-4, entry_seconds=2e-3)  # pacing it costs too


def test_a_long_text_is_read_only_for_an_output_that_is_long_enough() -> None:
    def due_after(num_unread: int, max_tokens: int) -> int:
        drafter, request = ScriptedDrafter(), request_of(5, max_tokens)
        state = state_of(request)
        of_drafter = state.drafter(drafter)
        taught(of_drafter.shared, 1e-4)
        taught(of_drafter.shared, 1e-4 + 1000 * 1e-4, unread=1000)
        request.tokens[:0] = [1] * num_unread
        request.num_prompt_tokens += num_unread
        return state.due(of_drafter, of_drafter.expected_tokens, 1e-4)

    assert due_after(1000, 400) == 0
    assert due_after(1000, 8) > 8


def test_nobody_is_asked_before_the_allowance_covers_it() -> None:
    state = state_of(request_of(5, 40, [ScriptedDrafter()]))
    assert state.may_ask(0.0)
    state.price = 1e-2
    assert not state.may_ask(0.9e-2)
    assert state.may_ask(1e-2)
    state.next_ask = 1
    assert not state.may_ask(1.0)
    state.request.tokens.append(1)
    assert state.may_ask(1.0)
    state.request.drafters = ()
    assert not state.may_ask(1.0)


def test_a_token_saves_what_tokens_take_at_the_present_rate() -> None:
    state = state_of()
    assert state.seconds_per_token == pytest.approx(PLAIN)
    for _ in range(100):
        state.learn_rate(2e-2, 5)
    assert state.seconds_per_token == pytest.approx(4e-3, rel=0.05)


def test_nodes_asked_for_are_twice_what_was_accepted_lately_and_never_few() -> None:
    state = state_of()
    for _ in range(20):
        state.learn_max_nodes(5, 0)
    assert state.max_nodes <= 9
    state.learn_max_nodes(9, 9)
    assert state.max_nodes == 26
    state.learn_max_nodes(0, 0)  # a step without drafts says nothing
    assert state.max_nodes == 26
