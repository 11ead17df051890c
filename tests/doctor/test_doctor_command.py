"""`paceline doctor` as a user runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from paceline.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["paceline", "doctor", *args])
    with pytest.raises(SystemExit) as ended:
        sys.exit(main())
    return int(ended.value.code or 0)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"prompt": "Once upon a time", "category": "decoded"},
        {"prompt": "One, two,", "output": " three, four, [one], two, three, four.", "category": "given"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_predicts_and_diagnoses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], questions: str, tmp_path: Path
) -> None:
    found = tmp_path / "found.json"
    assert run(monkeypatch, "--prompts", questions, "--max-tokens", "9", "--json", str(found)) == 0
    out = capsys.readouterr().out
    for word in ("speed-up", "tokens a step", "decoded", "given", "all together"):
        assert word in out
    report = json.loads(found.read_text())
    assert report["by_category"].keys() == {"decoded", "given"}
    assert report["prediction"]["num_prompts"] == 2
    interval = report["prediction"]["speedup"]
    assert 0.0 < interval["low"] <= interval["value"] <= interval["high"]
    machine = report["machine"]
    assert 0.0 <= machine["busy_elsewhere"] <= machine["cores"]
    assert machine["slowdown"] >= 1.0
    assert machine["forward_seconds"] >= machine["quickest_forward_seconds"] > 0.0
    assert machine["is_busy"] == ("The machine is busy" in out)
    assert all({"severity", "what", "why", "change"} == finding.keys() for finding in report["findings"])


def test_a_draft_model_of_another_vocabulary_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], questions: str, tiny: str
) -> None:
    assert run(monkeypatch, "--prompts", questions, "--max-tokens", "3", "--draft-model", tiny) == 0
    out = capsys.readouterr().out
    assert "problem: The draft model" in out
    assert "vocabulary of 256, the target one of 4096" in out


def test_mistakes_are_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(monkeypatch, "--prompts", str(tmp_path / "none.jsonl")) == 2
    assert "allowed: a file of lines" in capsys.readouterr().err
    assert run(monkeypatch, str(tmp_path)) == 2
