"""The arithmetic of `paceline bench pacer` on made-up figures, and a tiny run from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pacer_runs import prompt, run_of, sample, seconds

from paceline import LLM
from paceline.bench.pacer import (
    PACER,
    PLAIN,
    PLAIN_AGAIN,
    chosen_tasks,
    leaders,
    worth_measuring,
)
from paceline.bench.pacer_report import fixed_table, pacer_json, pacer_table
from paceline.bench.pacer_summary import PacerSummary, summarise_pacer
from paceline.bench.tasks import Task
from paceline.bench.watch import HostStep
from paceline.errors import ConfigError

Bench = Callable[..., Result]


def summary_of(**tasks: dict[str, float]) -> PacerSummary:
    return summarise_pacer(run_of([prompt(task.replace("_", "-"), figures) for task, figures in tasks.items()]))


def test_speed_ups_are_of_whole_tasks_and_medians_over_rounds() -> None:
    long = prompt("story", seconds(4.0, plain=8.0, again=7.0, near3=5.0))
    short = prompt("story", seconds(1.0, plain=2.0, again=2.0, near3=1.0))
    task = summarise_pacer(run_of([long, short])).tasks["story"]
    assert task.plain_seconds == pytest.approx(10.0 / 8)
    assert task.pacer.value == pytest.approx(2.0)
    assert task.pacer.low == pytest.approx(2.0)  # rounds are drawn jointly
    assert task.noise == pytest.approx(10.0 / 9)
    assert task.cold == pytest.approx(2.0)
    assert task.decoding == pytest.approx(2.0)
    assert (task.best, task.fixed[task.best]) == ("near 3", pytest.approx(10.0 / 6))
    assert task.share == pytest.approx(1.2)
    assert task.mean_acceptance_length == 2.0
    assert task.stops == {"guard": 6, "idle": 18}


def test_the_mix_gives_every_task_as_many_tokens() -> None:
    summary = summary_of(story=seconds(2.0, plain=8.0), noise=seconds(8.0, plain=8.0))
    assert summary.mix.value == pytest.approx(1.6)
    assert summary.mix_mean == pytest.approx(2.0)
    assert summary.mix_fixed["near 3"] == pytest.approx(0.8)
    assert summary.mix_fixed[PLAIN] == 1.0


def test_plain_decoding_is_a_fixed_contender() -> None:
    task = summary_of(noise=seconds(8.1)).tasks["noise"]
    assert task.best == PLAIN
    assert task.share == pytest.approx(8.0 / 8.1)


def test_host_time_is_that_of_large_steps() -> None:
    steps = [HostStep(1, 1.0), HostStep(12, 0.002), HostStep(16, 0.003), HostStep(16, 0.004), HostStep(17, 1.0)]
    host = summarise_pacer(run_of([prompt("story", seconds(4.0))], steps)).host
    assert host is not None
    assert (host.num_steps, host.median) == (3, 0.003)


@pytest.mark.parametrize(("elapsed", "over", "over_bound"), [(1.0, 0, 0), (1.12, 1, 0), (1.16, 1, 1)])
def test_runs_are_held_against_the_guard(elapsed: float, over: int, over_bound: int) -> None:
    one = prompt("story", seconds(4.0))
    one.timed[PACER][1] = sample(4.0, elapsed=elapsed, allowed=1.1, cost_error=0.05)
    summary = summarise_pacer(run_of([one]))
    assert (summary.guard.num_over, summary.guard.num_over_bound) == (over, over_bound)
    assert summary.guard.most_over == pytest.approx(max(elapsed / 1.1 - 1.0, 0.0))
    assert summary.guard.num_runs == 4


@pytest.mark.parametrize("where", ["sweep", "round"])
def test_one_token_or_one_log_probability_that_differs_is_found(where: str) -> None:
    one = prompt("story", seconds(4.0))
    if where == "sweep":
        one.swept[PACER] = sample(4.0, tokens=(5, 6, 7, 9))
    else:
        one.timed["far 3"][2] = replace(one.timed["far 3"][2], logprobs=(-0.5, -0.5, -0.5, -0.5000001))
    run = run_of([one])
    assert len(run.mismatches()) == 1
    assert (PACER if where == "sweep" else "far 3") in run.mismatches()[0]


def test_the_tables_and_the_json_say_it() -> None:
    run = run_of([prompt("story", seconds(4.0, near3=5.0))])
    summary = summarise_pacer(run)
    row = pacer_table(run, summary).rows[0]
    assert row[:2] == ("story", "2000.00")
    assert "2.00 (2.00 to 2.00)" in row
    assert "near 3: 1.60" in fixed_table(run, summary).rows[0][1]
    assert json.loads(json.dumps(pacer_json(run, summary)))["summary"]["tasks"]["story"]["fixed"]["near 3"] == 1.6


def test_each_drafter_is_measured_at_its_best_length_unless_it_is_silent_or_hopeless() -> None:
    run = run_of([prompt("story", seconds(4.0, near3=5.0, near7=4.9, far3=5.5, far7=7.0))])
    assert worth_measuring(run, "story") == ["near 7", "far 3"]
    run = run_of([prompt("story", seconds(4.0, near3=5.0, near7=4.9, far3=5.7, far7=7.0))])
    assert worth_measuring(run, "story") == ["near 7"]
    run = run_of([prompt("story", seconds(4.0, near3=5.0, near7=4.9, far3=6.0), silent="near")])
    assert worth_measuring(run, "story") == ["far 3"]


def test_leaders_are_best_over_all_tasks_together() -> None:
    first = prompt("story", seconds(4.0, near3=1.0, near7=4.0, far3=5.0, far7=5.5))
    second = prompt("noise", seconds(4.0, near3=9.0, near7=4.5, far3=2.0, far7=2.1))
    assert leaders(run_of([first, second]), 2) == ["far 3", "far 7"]


def test_tasks_are_chosen_by_name() -> None:
    tasks = [Task("a", "1"), Task("b", "2"), Task("a", "3"), Task("a", "4")]
    assert [t.prompt for t in chosen_tasks(tasks, None, 2)] == ["1", "3", "2"]
    assert [t.prompt for t in chosen_tasks(tasks, "b", 2)] == ["2"]
    with pytest.raises(ConfigError, match="'c'; allowed: a, b"):
        chosen_tasks(tasks, "a,c", 2)


SHORT = ("--tasks", "story,noise", "--prompts", 2, "--max-tokens", 4, "--repeats", 2, "--budgets", "2,3")


def test_a_tiny_run_from_end_to_end(bench: Bench, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "pacer.json"
    result = bench("pacer", "--model", tiny, *SHORT, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert found["provenance"]["command"]
    assert found["same_bytes"]
    assert found["summary"]["tasks"].keys() == {"story", "noise"}
    assert len(found["prompts"]) == 4
    for one in found["prompts"]:
        assert one["swept_seconds"].keys() >= {PLAIN, PACER, "suffix 2", "suffix 3", "recycle 3"}
        assert len(one["seconds"][PACER]) == len(one["seconds"][PLAIN_AGAIN]) == 2
        assert len(one["tokens"]) == 4
    assert found["summary"]["guard"]["num_runs"] == 4 + 4 * 2
    assert found["host_steps"]
    assert all(step["seconds"] >= 0.0 for step in found["host_steps"])


def test_a_byte_that_differs_is_exit_code_1(bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true_generate = LLM.generate

    def generate(self: LLM, prompt: Any, *, drafters: Any = None, **options: Any) -> Any:
        output = true_generate(self, prompt, drafters=drafters, **options)
        return replace(output, token_ids=(*output.token_ids[:-1], 0)) if drafters == ["suffix"] else output

    monkeypatch.setattr(LLM, "generate", generate)
    result = bench("pacer", "--model", tiny, *SHORT)
    assert result.exit_code == 1
    assert "suffix 2: not the bytes of plain decoding" in result.stderr
    assert "pacer: not the bytes" not in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("--budgets", "3,64", "below 64"), ("--tasks", "storey", "'storey'"), ("--max-tokens", "100000", "max_tokens")],
)
def test_what_cannot_be_is_refused(bench: Bench, tiny: str, option: str, value: str, words: str) -> None:
    result = bench("pacer", "--model", tiny, option, value)
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
