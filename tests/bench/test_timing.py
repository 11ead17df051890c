from __future__ import annotations

import pytest

from paceline.bench.timing import Contestant, interleave, ratio, self_ratio


def test_contestants_take_turns_and_are_reset() -> None:
    calls: list[str] = []
    both = [
        Contestant("a", lambda: calls.append("a"), lambda: calls.append("reset")),
        Contestant("b", lambda: calls.append("b")),
    ]
    samples = interleave(both, repeats=2)
    assert calls == ["a", "reset", "b"] * 3  # one untimed round, then two
    assert {name: len(times) for name, times in samples.items()} == {"a": 2, "b": 2}


def test_there_is_a_rest_before_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr("time.sleep", calls.append)
    interleave([Contestant(name, lambda: calls.append("turn")) for name in "ab"], repeats=1, rest=0.5)
    assert calls == [0.5, "turn"] * 4


def test_a_time_limit_leaves_three_rounds() -> None:
    assert len(interleave([Contestant("a", lambda: None)], repeats=50, seconds=0.0)["a"]) == 3


def test_ratios_of_medians() -> None:
    exact = ratio([2.0, 2.0, 90.0], [1.0, 1.0, 1.0])
    assert exact.value == 2.0
    assert exact.low <= 2.0 <= exact.high
    assert self_ratio([1.0, 2.0, 1.0, 2.0]) == 0.5
    assert self_ratio([1.0]) is None
