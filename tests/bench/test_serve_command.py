"""`benchmarks/serve.py`: the sweep of `paceline bench serve`, and under its table each line that it is to reach."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import serve

from paceline.bench.serve.sweep import Sweep, SweepPlan


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `paceline bench` is asked; it writes made-up figures, and no server is started."""
    asked: list[str] = []
    rates = {("plain", 1): 100.0, ("plain", 16): 290.0, ("speculative", 1): 150.0, ("speculative", 16): 300.0}
    figures = {"outcomes": {"ok": 1}, "outside_engine_share": 0.05, "median_token_gap_ms": 1, "p99_token_gap_ms": 2}
    sweep = Sweep(SweepPlan((1, 16), 1, 0), ("plain", "speculative"), 1)
    sweep.rounds = {key: [{**figures, "saturated_output_throughput": rate}] for key, rate in rates.items()}

    def app(arguments: list[str], **_: Any) -> None:
        asked.extend(arguments)
        model, dtype, file = (_last(arguments, option) for option in ("--model", "--dtype", "--json"))
        content = {"kind": "serve-sweep", "model": model, "dtype": dtype, "cells": sweep.cells()}
        Path(file).write_text(json.dumps(content))

    monkeypatch.setattr(serve, "app", app)
    return asked


def _last(arguments: list[str], option: str) -> str:
    """The one that counts where an option is given twice."""
    return [after for before, after in pairwise(arguments) if before == option][-1]


def test_each_line_is_marked_and_one_that_is_missed_is_the_exit_code(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert serve.main(["--repeats", "2"]) == 1
    assert asked[:7] == ["serve", "--model", "inflated", "--dtype", "bfloat16", "--sweep", "1,4,16"]
    assert _last(asked, "--repeats") == "2"
    lines = capsys.readouterr().out.splitlines()
    missed = [line for line in lines if line.startswith("not reached: ")]
    assert len(missed) == 1
    assert "3 x the throughput" in missed[0]
    assert [line for line in lines if line not in missed] == [line for line in lines if line.startswith("reached: ")]
    assert len(lines) == 6
    assert not Path(_last(asked, "--json")).exists()


def test_what_is_asked_for_wins_and_the_file_stays(asked: list[str], tmp_path: Path) -> None:
    file = tmp_path / "serve.json"
    assert serve.main(["--model", "bundled", f"--json={file}"]) == 0  # none of the lines is of this model
    assert _last(asked, "--model") == "bundled"
    assert file.exists()
