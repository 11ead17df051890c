"""Our goals: each line is reached on its threshold and not beyond it, and belongs to certain targets alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import goals
import pytest
from goal import Goal
from goals import busy_goals, decode_goals, doctor_goals, load_goals, step_goals
from serve_goals import serve_goals

from paceline.bench.busy import BusyPlan, BusyRun
from paceline.bench.doctor import DoctorRun, Figure
from paceline.bench.load import FIRST, LATER, TRANSFORMERS, LoadRun
from paceline.bench.names import AUTO, GENERATE, PLAIN
from paceline.bench.serve.sweep import Sweep, SweepPlan
from paceline.bench.step import StepReport, StepRow
from paceline.bench.subject import SubjectOptions
from paceline.doctor.prediction import Interval
from paceline.model.bandwidth import Bandwidth


def by_text(found: list[Goal]) -> dict[str, bool]:
    return {goal.text: goal.is_reached for goal in found}


def reread(content: dict[str, Any]) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(content))


# bench step


def step(costs: dict[int, float], llamacpp: float | None = None, dtype: str = "bfloat16", **more: object) -> list[Goal]:
    """Paceline at `costs` by rows, transformers at 1 throughout, llama.cpp at `llamacpp` throughout or absent."""
    others = {"llama.cpp": [llamacpp] * 3} if llamacpp else {}
    rows = [StepRow(count, count, [cost] * 3, [1.0] * 3, others) for count, cost in costs.items()]
    rows.append(StepRow(512, None, [], [1.0] * 3, others))  # does not fit
    report = StepReport("134m", {"dtype": dtype}, rows, Bandwidth(1.0, 1.0), 1, 1)
    return step_goals(reread({"shape": "134m", **report.as_dict(), **more}))


def test_lines_in_bfloat16() -> None:
    assert by_text(step({1: 1.0, 8: 1.1, 16: 1.25, 32: 1.7})) == {
        "8 rows cost at most 1.1 x 1 row": True,
        "16 rows cost at most 1.25 x 1 row": True,
        "32 rows cost at most 1.7 x 1 row": True,
        "1 row is no slower than transformers' 1 row": True,
    }
    beyond = step({1: 1.1, 8: 1.3, 16: 1.4, 32: 1.9})
    assert set(by_text(beyond).values()) == {False}
    assert str(beyond[0]).startswith("not reached: 8 rows")


def test_lines_in_float32() -> None:
    assert by_text(step({1: 1.0, 8: 9.0, 16: 1.2}, 0.1, "float32")) == {
        "16 rows cost at most 1.2 x 1 row": True,
        "1 row is no slower than transformers' 1 row": True,
    }


@pytest.mark.parametrize(
    ("costs", "wanted"),
    [
        ({1: 1.25, 2: 0.9, 4: 0.99}, (True, True)),
        ({1: 1.3, 2: 0.9, 4: 1.01}, (False, False)),
        ({1: 1.0, 2: 1.0}, (True, False)),
    ],
)
def test_lines_beside_llama_cpp(costs: dict[int, float], wanted: tuple[bool, bool]) -> None:
    found = by_text(step(costs, 1.0))
    assert found["1 row costs at most 1.25 x llama.cpp's 1 row"] is wanted[0]
    assert found["from 2 rows on faster than llama.cpp"] is wanted[1]


def test_the_worst_row_count_is_named() -> None:
    figures = [line.figure for line in step({1: 1.0, 2: 1.4, 4: 1.2}, 1.0)]
    assert any("1.40 (1.40 to 1.40) x its time, at 2 rows" in figure for figure in figures)


@pytest.mark.parametrize(("share", "expected"), [(0.85, True), (0.84, False)])
def test_linears_alone_are_held_against_the_bandwidth(share: float, expected: bool) -> None:
    [line] = [line for line in step({1: 1.0}, linear_bandwidth_shares={1: 0.9, 8: share}) if "linears" in line.text]
    assert line.is_reached is expected
    assert "at 1 to 8 rows" in line.text


def test_lines_belong_to_one_shape() -> None:
    assert step({1: 1.0, 8: 1.2}, shape="1b") == []
    assert step({1: 1.0, 8: 1.2}, shape=None) == []
    assert step({8: 1.2}) == []


# step.py --quantize


def quantised(kind: str, mix: str, shape: str = "134m", **changes: float) -> dict[str, bool]:
    """Every line on its threshold, one row taking a second, but for changes."""
    spent = {"reading": 1 / (1.3 if kind == "int4" else 1.15), "theirs": 1 / 0.9, "plain": 2.2, "8": 0.0, "16": 0.0}
    costs = {8: 1.5, 16: 2.5} if kind == "int4" else {8: 1.3, 16: 2.0}
    spent |= {str(n): cost for n, cost in costs.items()} | changes
    seconds = {f"reading {mix}": spent["reading"], f"Paceline {mix} 1": 1.0, f"llama.cpp {mix} 1": spent["theirs"]}
    seconds |= {f"Paceline {mix} {n}": spent[str(n)] for n in costs}
    seconds |= {f"llama.cpp {mix} {n}": 2 * cost for n, cost in costs.items()} | {"Paceline bfloat16": spent["plain"]}
    content = {
        "quantize": kind,
        "shape": shape,
        "rows": [1, 8, 16],
        "seconds": {k: [v] * 3 for k, v in seconds.items()},
    }
    return by_text(goals.GOALS["quantised-step"](reread(content)))


def test_lines_of_quantised_forwards_are_reached_on_their_thresholds() -> None:
    assert quantised("int8", "Q8_0") == {
        "int8, 1 row: at most 1.15 x the time of reading": True,
        "int8, 8 rows: at most 1.3 x 1 row": True,
        "int8, 16 rows: at most 2.0 x 1 row": True,
    }
    four = quantised("int4", "Q4_K_M", "1b")
    assert set(four.values()) == {True}
    assert len(four) == 7
    assert len(quantised("int4", "Q4_K_M")) == 6  # against bfloat16 only at 1 B


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"reading": 0.76}, "int4, 1 row: at most 1.3 x the time of reading"),
        ({"8": 1.51}, "int4, 8 rows: at most 1.5 x 1 row"),
        ({"theirs": 1.1}, "int4, 1 row: at most 0.9 x llama.cpp's Q4_K_M"),
        ({"16": 2.6}, "int4, 16 rows: at most 0.5 x llama.cpp's Q4_K_M"),
        ({"plain": 2.1}, "int4, 1 row: at least 2.2 x as fast as bfloat16"),
    ],
)
def test_lines_of_quantised_forwards_are_missed_beyond(change: dict[str, float], missed: str) -> None:
    assert quantised("int4", "Q4_K_M", "1b", **change)[missed] is False


# bench decode


def decode(model: str = "paceline-tiny", temperature: float = 0.0, **changes: float) -> list[Goal]:
    """A run in which every line is on its threshold, but for changes."""
    figure = {"generate": 2.0, "best": 1.5, "together": 9.0, "outside": 0.15, "collecting": 0.02, **changes}
    over = {"median": figure["best"], "together": figure["together"]}
    steps = {"outside_share": figure["outside"], "step_seconds": 1.0}
    spread = {"median": figure["generate"], "together": figure["together"]}
    names = (PLAIN, "paceline suffix, budget 3", "paceline model, budget 7")
    entries = [{"name": name, "over_generate": spread, "over_plain": over, "steps": steps} for name in names]
    run = {
        "model": model,
        "plan": {"temperature": temperature},
        "contenders": entries,
        "best_fixed": names[2],
        "bare_forward_share": 0.5,
        "collecting_seconds": figure["collecting"],
    }
    return decode_goals(reread({"runs": [run]}))


def test_lines_of_decoding_are_reached_on_their_thresholds() -> None:
    assert len(decode()) == 5
    assert all(line.is_reached for line in decode())
    assert "with paceline model, budget 7" in decode()[2].figure
    assert "(paceline suffix, budget 3)" in decode()[4].text  # the best without a forward of its own


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"generate": 1.99}, {0}),
        ({"collecting": 0.021}, {1}),
        ({"best": 1.49}, {2}),
        ({"together": 1.4}, {0, 2}),
        ({"outside": 0.151}, {3, 4}),
    ],
)
def test_each_line_of_decoding_is_missed_alone(change: dict[str, float], places: set[int]) -> None:
    assert {i for i, line in enumerate(decode(**change)) if not line.is_reached} == places


def test_other_models_have_two_lines_and_other_temperatures_none() -> None:
    assert len(decode(model="another")) == 2
    assert decode(temperature=0.8) == []


# bench busy


def busy(alone: float, beside: dict[int, float], theirs: float = 4.0) -> list[Goal]:
    """One second alone for transformers times `theirs` throughout."""
    run = BusyRun(SubjectOptions("m", "auto", "cpu"), BusyPlan("once", 2, beside=tuple(beside)), {}, "float32")
    run.seconds = {
        name: {load: [time] * 3 for load, time in {0: alone, **beside}.items()} for name in (PLAIN, AUTO)
    } | {GENERATE: dict.fromkeys((0, *beside), [theirs] * 3)}
    run.outputs = {name: [[1, 2]] for name in run.seconds}
    return busy_goals(reread(run.as_dict()))


@pytest.mark.parametrize(
    ("beside", "theirs", "reached"),
    [
        ({1: 2.2, 2: 3.0, 4: 9.0}, 4.0, [True, True, True, True]),
        ({1: 2.3, 2: 3.1}, 4.0, [False, True, False, True]),
        ({1: 2.2, 2: 3.0}, 2.5, [True, True, True, False]),
        ({4: 9.0}, 1.0, []),
    ],
)
def test_busy_machines_slow_plain_decoding_by_so_much(
    beside: dict[int, float], theirs: float, reached: list[bool]
) -> None:
    assert [line.is_reached for line in busy(1.0, beside, theirs)] == reached


# bench load


def load(first: float, later: float, theirs: float = 2.0, **changes: object) -> list[Goal]:
    seconds_of = {TRANSFORMERS: [theirs] * 3, FIRST: [first] * 3, LATER: [later] * 3}
    about = {"dtype": "bfloat16", "num_parameters": 1.1e9}
    return load_goals(reread(about | LoadRun(seconds_of, {name: [1] for name in seconds_of}).as_dict() | changes))


@pytest.mark.parametrize(
    ("first", "later", "theirs", "reached"),
    [
        (5.0, 3.0, 2.0, [True, True, True, True]),
        (5.1, 3.1, 2.0, [False, False, False, True]),
        (5.1, 3.6, 4.0, [True, True, False, False]),
    ],
)
def test_a_first_token_comes_soon(first: float, later: float, theirs: float, reached: list[bool]) -> None:
    assert [line.is_reached for line in load(first, later, theirs)] == reached


def test_seconds_to_a_first_token_are_of_one_size_and_dtype() -> None:
    assert len(load(9.0, 9.0, num_parameters=8e9)) == len(load(9.0, 9.0, dtype="auto")) == 2


# bench doctor


def doctor(figures: list[Figure]) -> list[Goal]:
    return doctor_goals(reread(DoctorRun(figures, []).as_dict()))


@pytest.mark.parametrize(("num_wrong", "expected"), [(1, True), (2, False)])
def test_nine_of_ten_intervals_must_hold(num_wrong: int, expected: bool) -> None:
    figures = [Figure("a", "speed-up", Interval(1.0, 0.9, 1.1), 1.0 + (i < num_wrong)) for i in range(10)]
    assert doctor(figures)[0].is_reached is expected


@pytest.mark.parametrize(("width", "expected"), [(0.2, True), (0.21, False)])
def test_intervals_of_speed_ups_must_be_narrow(width: float, expected: bool) -> None:
    narrow = Figure("a", "speed-up", Interval(1.0, 1.0 - width, 1.0 + width), 1.0)
    wide = Figure("a", "tokens a step", Interval(1.0, 0.1, 9.0), 1.0)
    assert doctor([narrow, narrow, wide, wide, wide])[1].is_reached is expected


# the command


def test_the_command_says_every_line_and_ends_with_1_if_one_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(name: str, num_wrong: int) -> str:
        figures = [Figure("a", "speed-up", Interval(1.0, 0.9, 1.1), 1.0 + (i < num_wrong)) for i in range(10)]
        (tmp_path / name).write_text(json.dumps({"kind": "doctor", **DoctorRun(figures, []).as_dict()}))
        return str(tmp_path / name)

    good, bad = write("good.json", 0), write("bad.json", 9)
    assert goals.main([good]) == 0
    assert goals.main([good, bad]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6
    assert [line for line in said if line.startswith("not reached: the doctor's intervals hold")]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kind": "soup"}', '{"kind": "step"}'])
def test_what_is_no_result_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.json"
    path.write_text(content)
    assert goals.main([str(path)]) == goals.main([str(tmp_path / "none")]) == goals.main([]) == 2
    assert "allowed: what paceline bench" in capsys.readouterr().err


# bench serve --sweep


def swept(rates: dict[tuple[str, int], float], gaps: float = 3.0, share: float | None = 0.1, **more: Any) -> list[Goal]:
    """Two rounds of each cell at these tokens a second, the p99 gap at `gaps` medians."""
    found = {
        "saturated_output_throughput": 0.0,
        "outcomes": {"ok": 5, "cut": 0},
        "outside_engine_share": share,
        "median_token_gap_ms": 2.0,
        "p99_token_gap_ms": 2.0 * gaps,
    }
    names, clients = (tuple(dict.fromkeys(part)) for part in zip(*rates, strict=True))
    sweep = Sweep(SweepPlan(clients, 2, 0), names, 5)
    sweep.rounds = {key: [{**found, "saturated_output_throughput": rate, **more}] * 2 for key, rate in rates.items()}
    return serve_goals(reread({"model": "inflated", "dtype": "bfloat16", "cells": sweep.cells()}))


GOOD = {("plain", 1): 100.0, ("plain", 16): 300.0, ("speculative", 1): 150.0, ("speculative", 16): 300.0}


def test_lines_of_serving_are_reached_on_their_thresholds() -> None:
    assert by_text(swept(GOOD)) == {
        "speculation is at least 1.5 x plain at 1 client": True,
        "speculation is at least 1.0 x plain at every load": True,
        "plain decoding at 16 clients has at least 3 x the throughput at 1": True,
        "the p99 gap between tokens is at most 3 x the median": True,
        "HTTP and scheduling take at most 10 % of the time at 16 clients": True,
        "every request is answered whole": True,
    }


@pytest.mark.parametrize(
    ("goals", "missed"),
    [
        (swept({**GOOD, ("plain", 16): 299.0, ("speculative", 16): 299.0}), "3 x the throughput"),
        (swept({**GOOD, ("speculative", 1): 149.0}), "1.5 x plain at 1"),
        (swept({**GOOD, ("speculative", 16): 299.0}), "1.0 x plain at every"),
        (swept(GOOD, gaps=3.1), "p99 gap"),
        (swept(GOOD, share=0.11), "HTTP and scheduling"),
        (swept(GOOD, share=None), "HTTP and scheduling"),
        (swept(GOOD, outcomes={"ok": 4, "cut": 1}), "answered whole"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_of_serving_is_missed_alone(goals: list[Goal], missed: str) -> None:
    assert [goal.text for goal in goals if not goal.is_reached] == [text for text in by_text(goals) if missed in text]
    assert sum(not goal.is_reached for goal in goals) == 1


def test_another_target_has_no_lines_of_serving() -> None:
    assert serve_goals({"model": "bundled", "dtype": "bfloat16", "cells": []}) == []
