"""`paceline calibrate` as a user runs it, and the report of what it decided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import paceline
from paceline.bundled import COMMANDS
from paceline.report.fields import read_commands

EVERY = 4  # of the bundled commands


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """An empty folder with `labelled.jsonl`: intents of spoken commands."""
    monkeypatch.chdir(tmp_path)
    commands = read_commands(COMMANDS)
    intents = sorted({command.intent for command in commands})
    lines = [
        {"prompt": command.prompt + ' {"intent": "', "choices": intents, "label": command.intent}
        for command in commands[::EVERY]
    ]
    Path("labelled.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines


def test_a_calibration_is_learnt_taken_by_decide_and_reported(run, bundled: paceline.LLM, labelled: list[dict]) -> None:
    promised = ("--error", "0.25", "--confidence", "0.8")
    done = run("calibrate", "--labelled", "labelled.jsonl", *promised, "--decisions", "decisions.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Of what is answered at most 25 % is wrong, with a confidence of 80 %:\n")
    assert done.stdout.endswith("calibration.json\n")
    told = json.loads(Path("calibration.json").read_text())
    assert told["choices"] == labelled[0]["choices"]
    assert told["num_fitted"] + told["num_tested"] == len(labelled)
    decided = [json.loads(line) for line in Path("decisions.jsonl").read_text().splitlines()]
    for line, one in zip(labelled[:5], decided[:5], strict=True):
        decision = bundled.decide(line["prompt"], line["choices"], calibration="calibration.json")
        assert decision.probabilities == pytest.approx(one["probabilities"])
        assert decision.threshold == one["threshold"] == told["threshold"]
    reported = run("report", "--decisions", "decisions.jsonl")
    assert (reported.returncode, reported.stderr) == (0, "")
    assert reported.stdout.startswith(f"decisions: {len(labelled)}\n")
    assert 'id="areas"' in Path("report.html").read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("calibrate --labelled labelled.jsonl --error 2", "--error is 2.0; allowed: a number between 0 and 1"),
        ("calibrate --labelled none.jsonl --error 0.1", "cannot read labelled examples from 'none.jsonl'"),
        ("report --decisions labelled.jsonl", "cannot read decisions from 'labelled.jsonl'"),
        ("report Once --decisions labelled.jsonl", "--decisions is given with prompts"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(run, labelled: list[dict], args: str, said: str) -> None:
    done = run(*args.split())
    assert done.returncode == 2
    assert said in done.stderr
