"""Deadlines: the earliest first, refused where they cannot be met, cut in time, and nobody starves for them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.engine.request import Terms
from paceline.engine.scheduler import PATIENCE
from paceline.errors import DeadlineError
from unit.test_continuous import Scene, Timed, tokens_of


def test_the_earliest_deadline_begins_first_and_those_without_one_last() -> None:
    scene = Scene(max_running=1)
    scene.engine.add(scene.request(5, 6))
    scene.engine.step()
    terms = [Terms(), *(scene.due_in(seconds) for seconds in (28, 20, 24))]
    requests = [scene.request(3, 2, seed, terms=one) for seed, one in enumerate(terms)]
    for request in requests:
        scene.engine.add(request)
    scene.run()
    began = sorted(requests, key=lambda request: request.times.admitted)
    assert [requests.index(request) for request in began] == [2, 3, 1, 0]
    assert all(request.finish_reason == "length" and request.stop_reason is None for request in requests)


def test_prompts_are_read_in_the_order_of_their_deadlines() -> None:
    scene = Scene()
    chatting = scene.request(5, 900)
    scene.engine.add(chatting)
    scene.engine.step()
    short, urgent = scene.request(300, 1, 1), scene.request(200, 1, 2, terms=scene.due_in(60))
    for request in (short, urgent):
        scene.engine.add(request)
    while urgent.finish_reason is None:
        scene.engine.step()
    assert urgent.error is None
    assert short.finish_reason is None
    assert 0 < scene.target.num_unread(short) < 299  # it had some of the turns


def test_one_without_a_deadline_is_not_starved_by_those_that_have_one() -> None:
    scene = Scene(max_running=1)
    patient = scene.request(5, 3)
    scene.engine.add(scene.request(5, 3))
    scene.engine.step()
    scene.engine.add(patient)
    for seed in range(200):
        scene.engine.add(scene.request(5, 3, seed, terms=scene.due_in(10)))
        scene.engine.step()
        if patient.finish_reason:
            break
    assert patient.finish_reason == "length"
    assert PATIENCE - 10 <= patient.times.admitted - patient.times.arrived <= PATIENCE + 10


def test_what_cannot_be_met_is_refused_at_once_in_words() -> None:
    scene = Scene()
    scene.engine.add(scene.request(500, 5))
    scene.run()  # now it knows what a page and a step take
    late, able = scene.request(640, 3, terms=scene.due_in(20)), scene.request(64, 3, terms=scene.due_in(20))
    scene.engine.add(late)
    assert isinstance(late.error, DeadlineError)
    assert "the deadline is 20000 ms away; the first token would take 3" in str(late.error)
    assert late.times.finished is not None
    scene.engine.add(able)
    scene.run()
    assert able.finish_reason == "length"


def test_what_is_ahead_of_a_request_counts() -> None:
    scene = Scene(max_running=1)
    scene.engine.add(scene.request(500, 5))
    scene.run()
    ahead = scene.request(320, 1, 1, terms=scene.due_in(25))
    behind, before = (scene.request(320, 1, 2, terms=scene.due_in(seconds)) for seconds in (28, 22))
    scene.engine.add(ahead)
    scene.engine.add(behind)
    assert isinstance(behind.error, DeadlineError)
    scene.engine.add(before)
    assert before.error is None


def test_a_deadline_that_passes_in_the_queue_is_told() -> None:
    scene = Scene(max_running=1)
    scene.engine.add(scene.request(5, 30))
    scene.engine.step()
    waiting = scene.request(5, 3, terms=scene.due_in(12))
    scene.engine.add(waiting)
    scene.run()
    assert isinstance(waiting.error, DeadlineError)
    assert tokens_of(waiting) == ()
    assert scene.target.num_held == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.floats(0.5, 25.0), st.sampled_from([0, 4]))
def test_a_running_request_is_cut_before_the_step_that_would_overrun_it(
    length: int, seconds: float, budget: int
) -> None:
    scene = Scene(budget=budget)
    scene.engine.add(scene.request(5, 4))
    scene.run()
    request = scene.request(length, 100, 1, terms=scene.due_in(seconds))
    scene.engine.add(request)
    scene.run()
    whole = scene.request(length, 100, 1)
    scene.engine.add(whole)
    scene.run()
    got = tokens_of(request)
    assert got == tokens_of(whole)[: len(got)]
    if got:
        assert (request.finish_reason, request.stop_reason) == ("length", "deadline")
        assert 0 <= request.terms.deadline - request.times.finished < 2 * Timed.step
    else:
        assert isinstance(request.error, DeadlineError)


def test_one_that_waits_again_when_its_deadline_comes_keeps_what_it_has() -> None:
    scene = Scene(cache_tokens=59)
    short, long = scene.request(4, 40, 1, terms=scene.due_in(27)), scene.request(40, 12, 2)
    for request in (short, long):
        scene.engine.add(request)
    scene.run()
    assert short.stats.num_preemptions == 1
    assert (short.finish_reason, short.stop_reason) == ("length", "deadline")
    assert len(tokens_of(short)) >= 5


def test_a_deadline_that_has_passed_already_is_refused() -> None:
    scene = Scene()
    scene.clock.now = 5.0
    request = scene.request(4, 4, terms=Terms(deadline=4.0))
    scene.engine.add(request)
    with pytest.raises(DeadlineError, match="0 ms away"):
        raise request.error
