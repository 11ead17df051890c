from __future__ import annotations

import ast
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from same_bits import ExactPlan, check_exactness

from paceline.bench.models import random_model
from paceline.console import show
from paceline.model.hf import HFTarget
from paceline.model.loading import load_target

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_check.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_script_makes_one_table_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rich", "rich.console", "rich.table", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)
    gpu_check = script()
    check = gpu_check.run(torch.device("cpu"), replace(gpu_check.SMALL, exact=gpu_check.SMALL.exact[1:]))
    show(check.table)
    output = capsys.readouterr().out
    assert check.is_exact, output
    assert "bits equal" in output
    assert "tiny Paceline, ms" in output
    assert "tiny transformers, ms" in output
    assert check.results["step"][0]["rows"]
    assert all(entry["exact"] and entry["num_tokens"] for entry in check.results["exactness"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without CUDA")
def test_without_cuda_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    assert script().main() == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_what_the_script_imports_needs_neither_typer_nor_rich() -> None:
    """Only at import: what is imported inside a function may fall back."""
    source = SCRIPT.parents[1] / "src" / "paceline"
    paths = [p for p in source.rglob("*.py") if "cli" not in p.parts and not p.stem.startswith(("cli", "__m"))]
    for path in [SCRIPT, SCRIPT.parents[1] / "benchmarks" / "same_bits.py", *paths]:
        imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names}
        names |= {node.module or "" for node in imports if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & {"typer", "rich"}, path.name


def test_exactness_sees_bits_that_depend_on_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    target, _ = load_target(random_model("tiny", torch.float32, torch.device("cpu"), 0.1), cache_tokens=1024)
    plan = ExactPlan((5, 70), max_tokens=6, temperatures=(0.0,))
    assert all(check.is_exact for check in check_exactness(target, plan))
    true_score = HFTarget.score

    def score(self: HFTarget, work: Any) -> Any:
        scores = true_score(self, work)
        return [np.nextafter(s, np.float32(np.inf)) if len(s) > 1 else s for s in scores]

    monkeypatch.setattr(HFTarget, "score", score)
    by_name = {check.name.split(", ", 1)[1]: check for check in check_exactness(target, plan)}
    assert by_name["plain, batch of 2"].is_exact
    assert by_name["trees"].equal_rows < by_name["trees"].num_tokens
