from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from paceline.bench.forwards import TransformersForward
from paceline.bench.models import random_model
from paceline.bench.step import StepPlan, StepReport, StepRow, bench_step, step_context
from paceline.bench.step_report import step_table
from paceline.errors import ConfigError
from paceline.model.bandwidth import Bandwidth

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
    assert found["cache_bytes_read"] == 70 * 2 * 2 * 16 * 2 * 2  # layers, heads, their size, keys and values, bfloat16
    assert found["numerics"]["dtype"] == "bfloat16"
    assert found["shape"] == "tiny"


def test_step_takes_a_folder(bench: Bench, tiny: str) -> None:
    result = bench("step", tiny, "--rows", "2", "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert "float32" in result.output


@pytest.mark.parametrize(
    "options", [("--rows", "0"), ("--rows", "two"), ("--shape", "9b"), ("tiny", "--shape", "tiny")]
)
def test_step_refuses_what_makes_no_sense(bench: Bench, options: tuple[str, ...]) -> None:
    assert isinstance(bench("step", *options).exception, ConfigError)


def report(costs: dict[int, float], other: float | None = None) -> StepReport:
    """Paceline at `costs` by rows, transformers at 1 throughout, another one at `other` throughout or absent."""
    others = {"other": [other] * 3} if other else {}
    rows = [StepRow(count, count, [cost] * 3, [1.0] * 3, others) for count, cost in costs.items()]
    numerics = {"dtype": "bfloat16", "device": "cpu", "path": "stock", "instruction_set": "AVX2", "threads": 1}
    return StepReport("134m", numerics, rows, Bandwidth(1.0, 1.0), 1, 1)


def test_others_have_columns_where_they_competed() -> None:
    table = step_table(report({1: 1.0, 8: 3.0}, 2.0), StepPlan((1, 8)))
    cells = dict(zip(table.columns, table.rows[1], strict=True))
    assert cells["other ms"] == "2000.00"
    assert cells["Paceline / other"].startswith("1.50")
    assert cells["Paceline / transformers"].startswith("3.00")
    alone = step_table(report({1: 1.0, 8: 3.0}), StepPlan((1, 8)))
    assert not [column for column in alone.columns if "other" in column]


def test_rows_that_do_not_fit_leave_gaps() -> None:
    found = report({1: 1.0}, 2.0)
    found.rows.append(StepRow(128, None, [], [1.0] * 3, {"other": [2.0] * 3}))
    table = step_table(found, StepPlan((1, 128)))
    cells = dict(zip(table.columns, table.rows[1], strict=True))
    assert cells["padded to"] == "does not fit"
    assert cells["Paceline ms"] == cells["Paceline / other"] == "-"
    assert found.rows[1].as_dict()["others"] == {"other": [2.0] * 3}


def test_others_take_their_turns_over_the_same_context() -> None:
    model = random_model("tiny", torch.float32, torch.device("cpu"), scale=0.1)
    plan = StepPlan((1, 3), context=70, repeats=2)
    other = TransformersForward(model, step_context(model, plan))
    found = bench_step("tiny", model, plan, {"other": other})
    assert [len(row.others["other"]) for row in found.rows] == [2, 2]
    theirs = TransformersForward(model, step_context(model, plan))
    logits = [one.contender("", 3).run() for one in (other, theirs)]  # its cache is what it was
    torch.testing.assert_close(*logits)
