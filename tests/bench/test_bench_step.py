from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from paceline.bench.memory import Bandwidth
from paceline.bench.step import StepPlan, StepReport, StepRow
from paceline.bench.step_report import step_reach, step_table
from paceline.errors import ConfigError

Bench = Callable[..., Result]


def test_step_times_both_sides_and_says_where_from(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    result = bench("step", "--shape", "tiny", "--rows", "1,3,64", "--context", 70, "--repeats", 1, "--json", path)
    assert result.exit_code == 0, result.output
    assert "Numeric path" in result.output
    assert "Floor" in result.output
    found = json.loads(path.read_text())
    assert {"command", "commit", "versions", "threads", "instruction_set"} <= found["provenance"].keys()
    assert [row["rows"] for row in found["rows"]] == [1, 3, 64]
    assert all(row["paceline_ms"] > 0 and row["transformers_ms"] > 0 for row in found["rows"])
    assert found["floor_ms"] > 0
    assert found["numerics"]["dtype"] == "bfloat16"
    assert found["reach"] == []


def test_step_takes_a_folder(bench: Bench, tiny: str) -> None:
    result = bench("step", tiny, "--rows", "2", "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert "float32" in result.output


@pytest.mark.parametrize(
    "options", [("--rows", "0"), ("--rows", "two"), ("--shape", "9b"), ("tiny", "--shape", "tiny")]
)
def test_step_refuses_what_makes_no_sense(bench: Bench, options: tuple[str, ...]) -> None:
    assert isinstance(bench("step", *options).exception, ConfigError)


def row(rows: int, ours: float, llamacpp: float | None) -> StepRow:
    return StepRow(rows, rows, [ours] * 3, [1.0] * 3, [llamacpp] * 3 if llamacpp else [])


def report(costs: dict[int, float], llamacpp: float | None = None, dtype: str = "bfloat16") -> StepReport:
    """Paceline at `costs` by rows, transformers at 1 throughout, llama.cpp at `llamacpp` throughout or absent."""
    rows = [row(count, cost, llamacpp) for count, cost in costs.items()]
    about: dict[str, object] = {
        "version": "0.0",
        "threads": 1,
        "cache": "float16",
        "largest_error": 0.01,
        "system": "CPU",
        "has_openmp": False,
    }
    about = about if llamacpp else {"absent": "not installed"}
    numerics = {"dtype": dtype, "device": "cpu", "path": "stock", "instruction_set": "AVX2", "threads": 1}
    return StepReport("134m", numerics, rows, Bandwidth(1.0, 1.0), 1, 1, about)


def reached(found: StepReport) -> dict[str, bool]:
    return {line.text: line.is_reached for line in step_reach(found, "134m")}


def test_lines_in_bfloat16() -> None:
    within = reached(report({1: 1.0, 8: 1.1, 16: 1.3}))
    assert within == {
        "8 rows cost at most 1.1 x 1 row": True,
        "16 rows cost at most 1.3 x 1 row": True,
        "1 row is no slower than transformers' 1 row": True,
    }
    beyond = report({1: 1.1, 8: 1.3, 16: 1.5})
    assert set(reached(beyond).values()) == {False}
    assert "not reached" in str(step_reach(beyond, "134m")[0])


def test_lines_in_float32() -> None:
    assert reached(report({1: 1.0, 8: 9.0, 16: 1.2}, 0.1, "float32")) == {
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
    found = reached(report(costs, 1.0))
    assert found["1 row costs at most 1.25 x llama.cpp's 1 row"] is wanted[0]
    assert found["from 2 rows on faster than llama.cpp"] is wanted[1]


def test_the_worst_row_count_is_named() -> None:
    figures = [line.figure for line in step_reach(report({1: 1.0, 2: 1.4, 4: 1.2}, 1.0), "134m")]
    assert any("1.40 (1.40 to 1.40) x its time, at 2 rows" in figure for figure in figures)


def test_lines_belong_to_one_shape() -> None:
    assert step_reach(report({1: 1.0, 8: 1.2}), "1b") == []
    assert step_reach(report({8: 1.2}), "134m") == []


def test_llama_cpp_has_columns_where_it_competed() -> None:
    table = step_table(report({1: 1.0, 8: 3.0}, 2.0), StepPlan((1, 8)))
    cells = dict(zip(table.columns, table.rows[1], strict=True))
    assert cells["llama.cpp ms"] == "2000.00"
    assert cells["Paceline / llama.cpp"].startswith("1.50")
    assert any("llama-cpp-python 0.0, 1 threads, float16 cache" in note for note in table.notes)
    assert any("built without OpenMP" in note for note in table.notes)
    alone = step_table(report({1: 1.0, 8: 3.0}), StepPlan((1, 8)))
    assert not [column for column in alone.columns if "llama.cpp" in column]
    assert "llama.cpp does not compete: not installed" in alone.notes


def test_rows_that_do_not_fit_leave_gaps() -> None:
    found = report({1: 1.0}, 2.0)
    found.rows.append(StepRow(128, None, [], [1.0] * 3, [2.0] * 3))
    table = step_table(found, StepPlan((1, 128)))
    cells = dict(zip(table.columns, table.rows[1], strict=True))
    assert cells["padded to"] == "does not fit"
    assert cells["Paceline ms"] == cells["Paceline / llama.cpp"] == "-"
    assert found.rows[1].as_dict()["llamacpp_ms"] == 2000.0
