from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from paceline.bench.memory import Bandwidth
from paceline.bench.step import StepReport, StepRow, step_reach
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


def report(eight: float, one: float, dtype: str = "bfloat16") -> StepReport:
    rows = [StepRow(1, 1, [one] * 3, [1.0] * 3), StepRow(8, 8, [eight] * 3, [1.0] * 3)]
    numerics = {"dtype": dtype, "device": "cpu"}
    return StepReport("134m", numerics, rows, Bandwidth(1.0, 1.0), 1, 1)


def test_lines_are_reached_or_not() -> None:
    assert [line.is_reached for line in step_reach(report(1.2, 1.0), "134m")] == [True, True]
    assert [line.is_reached for line in step_reach(report(2.0, 1.1), "134m")] == [False, False]
    assert "not reached" in str(step_reach(report(2.0, 1.1), "134m")[0])


def test_lines_belong_to_one_shape_in_bfloat16() -> None:
    assert step_reach(report(1.2, 1.0), "1b") == []
    assert step_reach(report(1.2, 1.0, "float32"), "134m") == []
