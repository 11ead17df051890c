"""`paceline bench load`: fresh processes, kept proofs in the last alone, errors told in one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from paceline.bench import load
from paceline.bench.load import FIRST, LATER, NAMES, TRANSFORMERS, bench_load
from paceline.bench.models import random_model
from paceline.errors import ModelError

Bench = Callable[..., Result]


def random_tiny() -> torch.nn.Module:
    return random_model("tiny", torch.float32, torch.device("cpu"))


def test_one_round_of_real_processes(
    bench: Bench, tiny: str, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process says, whatever it begins with: the round that is not counted and the later load ask none."""
    asked: list[str] = []
    real = load._first_token

    def token(name: str, *how: Any) -> tuple[float, int]:
        asked.append(name)
        return real(name, *how) if len(asked) > len(NAMES) and name != LATER else (1.0, 2 * 10**7)

    monkeypatch.setattr(load, "_first_token", token)
    monkeypatch.setattr(sys, "executable", python)
    file = tmp_path / "load.json"
    done = bench("load", "--model", tiny, "--repeats", 1, "--json", file)
    assert done.exit_code == 0, done.output
    found = json.loads(file.read_text())
    assert set(found["seconds"]) == set(found["peak_bytes"]) == set(NAMES)
    assert found["num_parameters"] == sum(one.numel() for one in random_tiny().parameters())
    for name in NAMES:
        assert len(found["seconds"][name]) == len(found["peak_bytes"][name]) == 1
        assert found["peak_bytes"][name][0] > 1e7
        assert name in done.output


def test_each_round_begins_without_what_earlier_ones_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[tuple[str, str]] = []

    def token(name: str, arguments: list[str], setting: dict[str, str]) -> tuple[float, int]:
        assert Path(setting["PACELINE_CACHE"]).is_dir()
        folders.append((name, setting["PACELINE_CACHE"]))
        return (8.0 if len(folders) <= len(NAMES) else 1.0 + len(folders)), 1000

    monkeypatch.setattr(load, "_first_token", token)
    run = bench_load("model", "auto", 2, lambda: None)
    assert [name for name, _ in folders] == [TRANSFORMERS, FIRST, LATER] * 3
    assert len({folder for _, folder in folders}) == 3
    assert run.seconds == {TRANSFORMERS: [5.0, 8.0], FIRST: [6.0, 9.0], LATER: [7.0, 10.0]}
    assert run.beside(LATER).value == pytest.approx(8.5 / 6.5)


@pytest.mark.parametrize(
    "code", ["raise SystemExit('out of luck')", "print('token 7'); raise SystemExit('out of luck')"]
)
def test_a_process_without_a_token_is_an_error(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_THEIRS", code)
    with pytest.raises(ModelError, match=r"^transformers gave no token: out of luck$"):
        bench_load("model", "auto", 1, lambda: None)
