"""Heads' context is kept where it is asked for, and tried again now and then where it is not."""

from __future__ import annotations

from paceline.model.interest import Interest


def nothing(is_kept: bool) -> float:
    """Of no prompt anything is known."""
    return 0.0


def test_a_request_is_decided_once_and_unasked_ones_make_it_rare() -> None:
    interest = Interest()
    kept = []
    for request in range(60):
        first = interest.decide(request, nothing)
        assert interest.decide(request, nothing) is first
        kept.append(first)
        interest.note(request, is_asked=False)
    assert kept[:3] == [True] * 3
    assert 2 <= sum(kept[3:]) <= 5


def test_one_that_asks_brings_it_back() -> None:
    interest = Interest()
    for request in range(19):
        interest.decide(request, nothing)
        interest.note(request, is_asked=request == 18)
    assert interest.decide(18.5, nothing) is True  # type: ignore[arg-type]
    assert all(interest.decide(request, nothing) for request in range(100, 109))


def test_those_that_were_never_tried_say_nothing() -> None:
    interest = Interest()
    for request in range(9):
        interest.note(request, is_asked=False)
    assert interest.decide(1, nothing)


def test_who_would_read_a_known_prompt_anew_goes_by_what_is_known() -> None:
    interest = Interest()
    for request in range(40):  # in all of this time heads are not worth it, and known prompts have no context
        kept = interest.decide(request, lambda is_kept: 0.0 if is_kept else 0.9)
        assert kept is False
        interest.note(request, is_asked=False)
    unknown = [interest.decide(request, nothing) for request in range(100, 103)]
    assert unknown == [True] * 3  # nobody was tried meanwhile
    for request in range(100, 103):
        interest.note(request, is_asked=False)
    for request in range(200, 216):
        assert interest.decide(request, lambda is_kept: 0.9 if is_kept else 0.0) is True
        interest.note(request, is_asked=False)
    assert [interest.decide(300 + i, lambda is_kept: 0.0 if is_kept else 0.2) for i in range(16)].count(True) == 1
