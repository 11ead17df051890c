"""Heads' context is kept where it is asked for, and tried again now and then where it is not."""

from __future__ import annotations

from paceline.model.interest import Interest


def test_a_request_is_decided_once_and_unasked_ones_make_it_rare() -> None:
    interest = Interest()
    kept = []
    for request in range(60):
        first = interest.decide(request)
        assert interest.decide(request) is first
        kept.append(first)
        interest.note(request, is_asked=False)
    assert kept[:3] == [True] * 3
    assert 2 <= sum(kept[3:]) <= 5


def test_one_that_asks_brings_it_back() -> None:
    interest = Interest()
    for request in range(19):
        interest.decide(request)
        interest.note(request, is_asked=request == 18)
    assert interest.decide(18.5) is True  # type: ignore[arg-type]
    assert all(interest.decide(request) for request in range(100, 109))


def test_those_that_were_never_tried_say_nothing() -> None:
    interest = Interest()
    for request in range(9):
        interest.note(request, is_asked=False)
    assert interest.decide(1)
