"""Who runs: first come, first served, whole or not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from law.support import Kind
from paceline import LLM
from paceline.engine.request import Request
from paceline.engine.scheduler import Scheduler
from paceline.testing import ScriptedDrafter, ScriptedTarget

PLAIN = Kind({})


def requests_of(count: int) -> list[Request]:
    return [PLAIN.request(5, 8) for _ in range(count)]


def queued(scheduler: Scheduler, count: int) -> list[Request]:
    requests = requests_of(count)
    for request in requests:
        scheduler.add(request)
    return requests


def test_requests_are_admitted_in_order_of_arrival() -> None:
    scheduler = Scheduler(max_running=7)
    requests = queued(scheduler, 5)
    assert list(scheduler.admit(lambda request: True)) == requests == scheduler.running


def test_no_more_run_than_allowed() -> None:
    scheduler = Scheduler(max_running=3)
    requests = queued(scheduler, 5)
    assert list(scheduler.admit(lambda request: True)) == requests[:3]
    assert list(scheduler.admit(lambda request: True)) == []
    scheduler.remove(requests[1])
    assert list(scheduler.admit(lambda request: True)) == [requests[3]]
    assert scheduler.running == [requests[0], requests[2], requests[3]]


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    scheduler = Scheduler(max_running=9)
    small, large, other = queued(scheduler, 3)
    assert list(scheduler.admit(lambda request: request is not large)) == [small]
    assert list(scheduler.admit(lambda request: request is not large)) == []
    assert list(scheduler.admit(lambda request: True)) == [large, other]


def test_nothing_is_reserved_that_does_not_run() -> None:
    scheduler = Scheduler(max_running=2)
    requests = queued(scheduler, 4)
    asked: list[Request] = []
    list(scheduler.admit(lambda request: bool(asked.append(request)) or True))
    assert asked == requests[:2]


def test_a_request_has_begun_before_the_next_one_is_considered() -> None:
    """It may have read what the next one begins with."""
    scheduler = Scheduler(max_running=3)
    first, second = queued(scheduler, 2)
    events: list[object] = []
    for request in scheduler.admit(lambda request: bool(events.append(("reserved", request))) or True):
        events.append(("begun", request))
    assert events == [("reserved", first), ("begun", first), ("reserved", second), ("begun", second)]


def test_a_removed_request_is_gone_whether_it_ran_or_waited() -> None:
    scheduler = Scheduler(max_running=1)
    running, waiting = queued(scheduler, 2)
    list(scheduler.admit(lambda request: True))
    scheduler.remove(waiting)
    assert not scheduler.is_idle
    scheduler.remove(running)
    assert scheduler.is_idle
    scheduler.remove(running)  # once more does nothing


@given(st.integers(1, 5), st.lists(st.sampled_from(["add", "admit", "refuse", "finish"]), max_size=40))
def test_requests_run_in_order_whatever_happens(max_running: int, events: list[str]) -> None:
    scheduler = Scheduler(max_running)
    added: list[Request] = []
    admitted: list[Request] = []
    for event in events:
        if event == "add":
            added += queued(scheduler, 1)
        elif event == "finish" and scheduler.running:
            scheduler.remove(scheduler.running[len(added) % len(scheduler.running)])
        else:
            admitted += scheduler.admit(lambda request, event=event: event == "admit")
        assert len(scheduler.running) <= max_running
    assert admitted == added[: len(admitted)]


def test_requests_beyond_the_cache_wait_and_get_the_same_tokens() -> None:
    def logits(history):
        return [(7 * sum(history) + 3 * v * v) % 11 for v in range(9)]

    small, large = ScriptedTarget(logits, 9, cache_tokens=30), ScriptedTarget(logits, 9)
    prompts = [[1, 2], [3], [4, 4, 4], [2, 8], [5]]
    options = {"max_tokens": 12, "temperature": 1.0, "seed": 3}
    drafters = [ScriptedDrafter.perfect(large)]
    waited = LLM.from_target(small, None, drafters=drafters).generate(prompts, **options)
    together = LLM.from_target(large, None, drafters="none").generate(prompts, **options)
    assert [o.token_ids for o in waited] == [o.token_ids for o in together]
    assert small.num_held == 0
