"""Percentiles, goodput, deadlines and warnings of loads that are written down rather than run."""

from __future__ import annotations

from typing import Any

import pytest

from paceline.bench.serve.answer import CUT, FAILED, OK, REFUSED, REJECTED, Answer
from paceline.bench.serve.counters import Counters
from paceline.bench.serve.figures import details, figures, is_good, most_at_once
from paceline.bench.serve.load import Load
from paceline.bench.serve.report import warnings
from paceline.bench.serve.wanted import FigureOptions, parse_goodput, parse_metrics, parse_percentiles
from paceline.errors import ConfigError


def answer(sent: float, times: list[float], outcome: str = OK, due: float | None = None) -> Answer:
    """A token at each of these seconds after it was sent; without an answer it ends after a second."""
    made = Answer("story", sent if due is None else due, sent, outcome)
    for count, after in enumerate(times, start=1):
        usage = {"prompt_tokens": 10, "completion_tokens": count}
        made.take({"choices": [{"text": "x"}], "usage": usage}, sent + after)
    made.ended = sent + (times[-1] if times else 1.0)
    if outcome in (FAILED, REJECTED, REFUSED):
        made.status, made.error = (408 if outcome == REFUSED else 429), "no"
    return made


def load(*answers: Answer, **more: Any) -> Load:
    fields: dict[str, Any] = {"saturated_until": None, "counted": None, "counted_saturated": None, "cpu_seconds": 1.0}
    return Load(list(answers), 0.0, 4.0, lateness=[0.0] * len(answers), **{**fields, **more})


def test_a_load_by_hand() -> None:
    """Tokens after 1, 2, 4 s, and after 3, 3.5, 4 s; one is rejected and gives no times, but is counted."""
    found = figures(
        load(answer(0.0, [1.0, 2.0, 4.0]), answer(0.0, [3.0, 3.5, 4.0]), answer(0.0, [], REJECTED)),
        FigureOptions(percentiles=(50.0, 99.0, 99.9)),
    )
    assert (found["completed"], found["failed"]) == (2, 1)
    assert found["outcomes"] == {"ok": 2, "cut": 0, "refused": 0, "rejected": 1, "failed": 0}
    assert found["error_counts"] == {"429 no": 1}
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (20, 6)
    assert (found["request_throughput"], found["output_throughput"]) == (0.5, 1.5)
    assert found["total_token_throughput"] == 6.5
    assert (found["mean_ttft_ms"], found["median_ttft_ms"], found["std_ttft_ms"]) == (2000.0, 2000.0, 1000.0)
    assert found["p50_tpot_ms"] == pytest.approx(1000.0)  # 1.5 and 0.5 s
    assert found["median_itl_ms"] == pytest.approx(750.0)  # 0.5, 0.5, 1, 2 s
    assert found["p99_itl_ms"] == pytest.approx(1970.0)  # 0.97 of the way from 1 to 2 s
    assert found["p99.9_e2el_ms"] == 4000.0
    assert found["max_concurrent_requests"] == 3
    assert found["generator_cpu_share"] == 0.25
    assert found["request_goodput"] is None


def test_nothing_answered_has_no_times() -> None:
    found = figures(load(answer(0.0, [], FAILED)), FigureOptions())
    assert (found["completed"], found["p99_ttft_ms"], found["mean_itl_ms"]) == (0, None, None)


@pytest.mark.parametrize(
    ("goals", "good"),
    [
        ({"ttft": 1000.0}, True),
        ({"ttft": 999.0}, False),
        ({"tpot": 1500.0, "e2el": 4000.0}, True),
        ({"tpot": 1499.0, "e2el": 4000.0}, False),
        ({"ttft": 1000.0, "e2el": 3999.0}, False),
    ],
)
def test_a_good_request_is_within_every_limit(goals: dict[str, float], good: bool) -> None:
    assert is_good(answer(0.0, [1.0, 2.0, 4.0]), goals) is good


def test_a_cut_answer_is_never_good_and_one_token_has_no_tpot() -> None:
    assert not is_good(answer(0.0, [0.1], CUT), {"ttft": 1000.0})
    assert is_good(answer(0.0, [0.1]), {"tpot": 0.0})
    found = figures(load(answer(0.0, [1.0]), answer(0.0, [3.0])), FigureOptions(goodput={"ttft": 2000.0}))
    assert found["request_goodput"] == 0.25


def test_what_became_of_a_deadline_adds_up() -> None:
    """Whole in time, whole but late, cut in time, cut but late, refused, rejected for something else."""
    answers = [
        answer(0.0, [0.5]),
        answer(0.0, [2.5]),
        answer(0.0, [1.5], CUT),
        answer(0.0, [2.1], CUT),
        answer(0.0, [], REFUSED),
        answer(0.0, [], REJECTED),
        answer(0.0, [2.0]),
        answer(1.0, [1.9]),
    ]
    found = figures(load(*answers), FigureOptions(deadline_ms=2000.0))
    rates = {kind: found[f"deadline_{kind}_rate"] for kind in ("hit", "cut", "late", "refused", "lost")}
    assert rates == {"hit": 3 / 8, "cut": 1 / 8, "late": 2 / 8, "refused": 1 / 8, "lost": 1 / 8}
    assert "deadline_hit_rate" not in figures(load(*answers), FigureOptions())


def test_most_at_once_counts_touching_requests_one_after_the_other() -> None:
    assert most_at_once([answer(0.0, [1.0]), answer(1.0, [1.0]), answer(1.5, [0.1])]) == 2
    assert most_at_once([]) == 0


def test_the_saturated_part_of_a_closed_loop() -> None:
    """Until 2 s all are busy: 3 tokens, and 1.5 s of that in engine steps."""
    busy = Counters({"paceline:engine_busy_seconds_total": 1.5})
    answers = answer(0.0, [1.0, 2.0, 4.0]), answer(0.0, [1.5, 3.5, 4.0])
    found = figures(load(*answers, saturated_until=2.0, counted_saturated=busy), FigureOptions())
    assert found["saturated_output_throughput"] == 1.5
    assert found["outside_engine_share"] == 0.25
    assert figures(load(*answers), FigureOptions())["saturated_output_throughput"] is None


def test_the_wait_for_a_client_is_apart() -> None:
    found = figures(load(answer(2.0, [1.0], due=0.5)), FigureOptions())
    assert (found["median_client_queue_time_ms"], found["median_ttft_ms"]) == (1500.0, 1000.0)
    assert details(load(answer(2.0, [1.0, 1.5], due=0.5)))["itls"] == [[0.5]]


def test_a_generator_that_is_in_the_way_says_so() -> None:
    quiet = figures(load(answer(0.0, [1.0])), FigureOptions())
    assert warnings(quiet) == []
    busy = figures(load(answer(0.0, [1.0]), cpu_seconds=3.0), FigureOptions())
    assert "75% of a core" in warnings(busy)[0]
    late = load(answer(0.0, [1.0]))
    late.lateness = [0.5]
    assert "500 ms late" in warnings(figures(late, FigureOptions()))[0]


def test_options_are_read_or_refused() -> None:
    assert parse_goodput(["ttft:200", "tpot:50,e2el:5000"]) == {"ttft": 200.0, "tpot": 50.0, "e2el": 5000.0}
    assert parse_goodput([]) is None
    for wrong in ("ttft", "ttft:-1", "itl:5", "ttft:nan", "ttft:x"):
        with pytest.raises(ConfigError, match="goodput"):
            parse_goodput([wrong])
    assert parse_percentiles("50,99.9") == (50.0, 99.9)
    for wrong in ("", "101", "a", "nan"):
        with pytest.raises(ConfigError, match="percentiles"):
            parse_percentiles(wrong)
    assert parse_metrics("ttft, itl") == ("ttft", "itl")
    with pytest.raises(ConfigError, match="p99"):
        parse_metrics("p99")
