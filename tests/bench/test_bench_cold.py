"""`paceline bench pacer --cold`: its arithmetic on made-up visits, and a tiny run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from here import Here
from pacer_runs import prompt, sample
from transformers import AutoConfig

from paceline.bench import cold, cold_side
from paceline.bench.cold import COLD, COLD_TASKS, KEPT, ColdPlan, ColdRun, ColdVisit, bench_cold, cold_table
from paceline.bench.pacer import PLAIN, chosen_tasks
from paceline.bench.subject import DRAFT_GROWTH, SubjectOptions, load_subject
from paceline.bench.tasks import Task, read_tasks
from paceline.bundled import DEFAULT_DRAFT, bundled_path
from paceline.bundled.grow import inflated_config, num_parameters
from paceline.pacing import FixedPacer

SUBJECT = SubjectOptions("made-up", "auto", "cpu")


def visit(first: float, plain: list[float], different: tuple[str, ...] = (), **fixed: list[float]) -> ColdVisit:
    seconds = {PLAIN: plain} | {name.replace("_", " "): values for name, values in fixed.items()}
    return ColdVisit(first, 4, seconds, {}, {}, list(different))


def test_ratios_are_of_one_process_and_of_medians() -> None:
    one = visit(2.0, [4.0, 8.0, 6.0], near_3=[3.0, 9.0, 3.0], far_7=[4.0, 4.0, 4.0])
    assert (one.best, one.over_plain, one.share, one.best_over_plain) == ("near 3", 3.0, 1.5, 2.0)


def test_plain_decoding_is_a_fixed_contender() -> None:
    one = visit(5.0, [4.0], near_3=[6.0])
    assert (one.best, one.share, one.best_over_plain) == (PLAIN, 0.8, 1.0)


def run_of(**kinds: list[ColdVisit]) -> ColdRun:
    return ColdRun(SUBJECT, ColdPlan(repeats=3), {"path": "p", "dtype": "float32"}, {"story": dict(kinds)})


def test_rounds_are_shown_by_their_median_and_their_range() -> None:
    processes = [visit(first, [first * over]) for first, over in ((1.0, 0.5), (4.0, 1.0), (0.5, 2.0))]
    run = run_of(cold=processes, kept=[visit(1.0, [2.0], near_3=[1.0])] * 3)
    (row,) = cold_table(run).rows
    assert row[0] == "story"
    assert row[2:6] == ("1.00 (0.50 to 2.00)", "1.00 (0.50 to 2.00)", "2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)")
    found = run.as_dict()["tasks"]["story"]
    assert found[KEPT]["over_plain"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert found[COLD]["visits"][1]["first_seconds"] == 4.0


def test_other_bytes_are_named_once() -> None:
    run = run_of(cold=[visit(1.0, [1.0], ("pacer",)), visit(1.0, [1.0], ("pacer", "near 3"))], kept=[visit(1.0, [1.0])])
    assert run.mismatches() == [
        "near 3, story, cold: not the bytes of plain decoding",
        "pacer, story, cold: not the bytes of plain decoding",
    ]
    assert not run.as_dict()["same_bytes"]


def test_only_who_has_something_to_say_is_measured_again() -> None:
    one = prompt("story", {PLAIN: 1.0})
    one.swept |= {"near 3": sample(3.0), "near 7": sample(2.0), "far 3": sample(4.0), "silent 3": sample(0.5, 0)}
    one.swept[PLAIN] = sample(1.0, 0)
    assert cold_side.leaders(one) == ["near 7", "near 3"]


def test_each_pair_of_processes_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty for the first, and for the second as the first has left it."""
    seen: list[tuple[str, list[str]]] = []

    class Process:
        opened: dict[str, Any] = {"numerics": {"path": "p", "dtype": "d"}}  # noqa: RUF012

        def ask(self, task: dict[str, Any], **_: Any) -> dict[str, Any]:
            made = visit(1.0, [1.0])
            return {name: getattr(made, name) for name in made.__dataclass_fields__}

    @contextmanager
    def fresh(serve: str, settings: dict[str, Any], environment: dict[str, str]):
        folder = Path(environment["PACELINE_CACHE"])
        seen.append((str(folder), sorted(os.listdir(folder))))
        yield Process()
        (folder / "experience").touch()

    monkeypatch.setattr(cold, "FreshProcess", fresh)
    run = bench_cold(SUBJECT, [Task("a", "x"), Task("b", "y")], ColdPlan(repeats=2))
    assert [files for _, files in seen] == [[], ["experience"]] * 4
    assert len({folder for folder, _ in seen}) == 4
    assert not any(Path(folder).exists() for folder, _ in seen)
    assert {task: [len(kinds[COLD]), len(kinds[KEPT])] for task, kinds in run.visits.items()} == {
        "a": [2, 2],
        "b": [2, 2],
    }


def test_the_six_texts_are_among_the_bundled_tasks() -> None:
    assert [task.task for task in chosen_tasks(read_tasks(None), COLD_TASKS, 1)] == sorted(
        COLD_TASKS.split(","), key=[task.task for task in read_tasks(None)].index
    )


def test_first_requests_from_end_to_end(
    bench: Callable[..., Result], tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "FreshProcess", Here)
    tasks, file = tmp_path / "tasks.jsonl", tmp_path / "cold.json"
    lines = [{"task": "list", "prompt": "1, 2, 3, 1, 2, 3, 1, 2,"}, {"task": "list", "prompt": "not asked"}]
    tasks.write_text("\n".join(map(json.dumps, lines)))
    small = ("--max-tokens", 8, "--repeats", 1, "--budgets", "3")
    result = bench("pacer", "--cold", "--model", tiny, "--file", tasks, *small, "--json", file)
    assert result.exit_code == 0, result.output
    found = json.loads(file.read_text())
    assert found["kind"] == "cold"
    assert found["same_bytes"]
    for kind in (COLD, KEPT):
        (one,) = found["tasks"]["list"][kind]["visits"]
        assert one["num_tokens"] == 8
        assert one["first_seconds"] > 0.0
        assert len(one["seconds"][PLAIN]) == 3
        assert one["stats"]["num_steps"] <= 8
    for word in ("cold x plain", "kept x plain", "of best fixed", "list"):
        assert word in result.output


def test_the_bundled_draft_model_grows_to_fourteen_million_and_still_drafts() -> None:
    with load_subject("bundled", "float32", "cpu", "inflated") as subject:
        assert "model" in subject.drafters
        how: dict[str, Any] = {"drafters": ["model"], "pacer": FixedPacer(7)}
        drafted = subject.llm.generate("One day, a boy named", max_tokens=24, temperature=0.0, **how)
        plain = subject.llm.generate("One day, a boy named", drafters="none", max_tokens=24, temperature=0.0)
    assert drafted.token_ids == plain.token_ids
    assert drafted.stats.num_accepted_draft_tokens > 0
    assert (
        13e6
        < num_parameters(inflated_config(AutoConfig.from_pretrained(bundled_path(DEFAULT_DRAFT)), DRAFT_GROWTH))
        < 15e6
    )
