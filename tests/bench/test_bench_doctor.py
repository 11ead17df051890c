"""Predictions against measurements: the comparison on made-up figures, and a tiny run from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import Result

from paceline.bench import doctor
from paceline.bench.doctor import DoctorRun, compare, doctor_table, has_same_pace, questions_of
from paceline.bench.tasks import Task
from paceline.doctor.costs import ForwardPace, MeasuredCosts
from paceline.doctor.recording import RecordedOutput
from paceline.doctor.replay import Replayed
from paceline.doctor.visit import Visit
from paceline.engine.stats import Stats
from paceline.pacing import ForwardCost

Bench = Callable[..., Result]
COSTS = MeasuredCosts({1: ForwardCost(1.0, 0.0)}, (1,), np.ones((3, 1)))


def stats(steps: int, drafted: int, accepted: int, seconds: float) -> Stats:
    return Stats(
        num_emitted_tokens=12,
        num_steps=steps,
        num_draft_tokens=drafted,
        num_accepted_draft_tokens=accepted,
        decode_seconds=seconds,
    )


def visit_of(num_prompts: int) -> Visit:
    questions = questions_of([Task("a", "prompt")] * num_prompts)
    recordings = [RecordedOutput(question, (1,), {}, (2,) * 12, ()) for question in questions]
    plain = [Replayed(((1, 5),) * 12, 0.0, stats(12, 0, 0, 12.0)) for _ in questions]
    paced = [Replayed(((1, 5),) * 6, 0.0, stats(6, 20, 6, 6.0)) for _ in questions]
    return Visit(recordings, COSTS, plain, [paced], ForwardPace(1.0, 1.0), 0.0)


def test_measured_figures_are_of_the_task_s_prompts_together() -> None:
    plain = [[stats(12, 0, 0, s) for s in seconds] for seconds in ((8.0, 4.0), (10.0, 4.0), (12.0, 4.0))]
    paced = [[stats(4, 10, 5, 4.0), stats(6, 10, 5, 3.0)] for _ in range(3)]
    figures = compare("a", visit_of(2).prediction(), plain, paced)
    assert [(f.task, f.name) for f in figures] == [
        ("a", "speed-up"),
        ("a", "tokens a step"),
        ("a", "acceptance rate"),
    ]
    assert [f.measured for f in figures] == pytest.approx([14 / 7, 24 / 10, 0.5])
    assert figures[0].predicted.value == pytest.approx(2.0)
    assert [f.holds for f in figures] == [True, False, False]
    row = doctor_table("made-up", DoctorRun(figures, [])).rows[0]
    assert row[0] == "a"
    assert row[1].endswith("· 2.00")
    assert row[2].endswith("· 2.40 !")


@pytest.mark.parametrize(("seconds", "expected"), [(10.8, False), (11.0, True), (13.1, True), (13.3, False)])
def test_only_plain_decoding_says_that_the_machine_has_changed(seconds: float, expected: bool) -> None:
    """It took 12 s a prompt in the replay."""
    assert has_same_pace(visit_of(2), [[stats(12, 0, 0, seconds)] * 2] * 3) is expected


def test_a_visit_after_which_the_machine_changed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    paces = iter([12.0, 20.0, 12.0, 20.0, 20.0, 20.0])
    paced = [[stats(6, 20, 6, 6.0)]]
    monkeypatch.setattr(doctor, "examine", lambda *args: visit_of(1))
    monkeypatch.setattr(doctor, "_measure", lambda *args: ([[stats(12, 0, 0, next(paces))]], paced))
    subject = SimpleNamespace(llm=None, drafters=())
    run = doctor.bench_doctor(subject, [Task(name, "prompt") for name in "abc"], 12, 1, lambda: None)
    assert [(f.task, f.measured) for f in run.figures if f.name == "speed-up"] == [
        ("a", 2.0),
        ("b", 2.0),
        ("c", pytest.approx(20 / 6)),  # the third time it counts
    ]
    assert [f.task for f in run.discarded if f.name == "speed-up"] == ["b", "c", "c"]
    assert "Visited again" in doctor.doctor_table("made-up", run).notes[1]


def test_a_tiny_run_from_end_to_end(bench: Bench, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    options = ("--tasks", "story,noise,copy", "--prompts", 1, "--max-tokens", 5, "--repeats", 1)
    result = bench("doctor", "--model", tiny, *options, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert len(found["figures"]) == 9
    assert len(found["discarded"]) % 3 == 0
    assert all(figure["measured"] >= 0.0 for figure in found["figures"])
    assert {figure["task"] for figure in found["figures"]} == {"story", "noise", "copy"}
