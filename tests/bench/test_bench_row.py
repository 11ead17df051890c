"""`paceline bench pacer --in-a-row`: its arithmetic on made-up figures, and a tiny run from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from click.testing import Result
from pacer_runs import prompt, run_of, sample, seconds

from paceline import LLM
from paceline.bench.pacer import PACER, PLAIN, PLAIN_AGAIN
from paceline.bench.row import row_table, row_tasks, summarise_row
from paceline.bench.tasks import Task, read_tasks
from paceline.errors import ConfigError

Bench = Callable[..., Result]


def test_the_whole_is_of_sums_and_the_worst_of_single_requests() -> None:
    run = run_of([prompt("noise", seconds(10.0, plain=8.0)), prompt("noise", seconds(8.0, plain=8.0, again=4.0))])
    summary = summarise_row(run)
    assert summary.whole.value == pytest.approx(16 / 18)
    assert summary.again_whole.value == pytest.approx(16 / 12)
    assert summary.requests == pytest.approx([0.8, 1.0])
    assert (summary.worst, summary.as_dict()["worst"], summary.as_dict()["again_worst"]) == (0, 0.8, 1.0)


def test_what_the_first_round_paid_is_told_apart() -> None:
    """Medians over rounds hide it."""
    one = prompt("noise", seconds(8.0, plain=8.0))
    one.timed[PLAIN] = [sample(8.0) for _ in range(3)]
    one.timed[PACER] = [sample(time) for time in (16.0, 8.0, 8.0)]
    summary = summarise_row(run_of([one]))
    assert (summary.whole.value, summary.first_round) == (1.0, 0.5)


def test_the_table_has_a_line_for_each_request_and_one_for_all() -> None:
    run = run_of([prompt("noise", seconds(10.0, plain=8.0)), prompt("noise", seconds(8.0))])
    run.prompts[0].timed[PACER][1].stats["drafters"] = {"a": {"num_proposals": 2}, "b": {"num_proposals": 3}}
    table = row_table(run, summarise_row(run))
    assert [row[0] for row in table.rows] == ["1", "2", "all"]
    assert table.rows[0][2] == "0.800"
    assert table.rows[2][2].startswith("0.889 (")
    assert "0.800 of plain, number 1" in table.notes[0]


def test_requests_differ_by_their_words_and_seeds() -> None:
    tasks = [task for task in read_tasks(None) if task.task == "noise"]
    found = row_tasks(tasks, 10)
    assert len({task.prompt for task in found}) == len({task.sampling["seed"] for task in found}) == 10
    for index, task in enumerate(found):
        given = tasks[index % len(tasks)]
        assert sorted(task.prompt.split()) == sorted(given.prompt.split())
        assert task.sampling == given.sampling | {"seed": index}
    assert row_tasks(tasks, 3) == found[:3]
    assert row_tasks([Task("a", "one")], 2)[1].sampling == {"seed": 1}


SHORT = ("--in-a-row", 3, "--max-tokens", 4, "--repeats", 2)


def test_a_tiny_run_from_end_to_end(bench: Bench, tiny: str, tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    result = bench("pacer", "--model", tiny, *SHORT, "--json", path)
    assert result.exit_code == 0, result.output
    found = json.loads(path.read_text())
    assert (found["kind"], found["same_bytes"]) == ("row", True)
    assert found["provenance"]["command"]
    for name in (PLAIN, PACER, PLAIN_AGAIN):
        assert [len(rounds) for rounds in found["seconds"][name]] == [2, 2, 2]
    plain, paced = (sum(map(median, found["seconds"][name])) for name in (PLAIN, PACER))
    assert found["summary"]["whole"]["value"] == pytest.approx(plain / paced)
    assert found["summary"]["guard"]["num_runs"] == 3 * 2
    for words in ("worst request", "first round alone"):
        assert words in result.output


def test_a_byte_that_differs_is_exit_code_1(bench: Bench, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true_generate = LLM.generate

    def generate(self: LLM, prompt: Any, *, drafters: Any = None, **options: Any) -> Any:
        output = true_generate(self, prompt, drafters=drafters, **options)
        return replace(output, token_ids=(*output.token_ids[:-1], 0)) if drafters else output

    monkeypatch.setattr(LLM, "generate", generate)
    result = bench("pacer", "--model", tiny, *SHORT)
    assert result.exit_code == 1
    assert "pacer: not the bytes of plain decoding" in result.stderr


def test_one_of_two_ways_must_be_chosen(bench: Bench, tiny: str) -> None:
    result = bench("pacer", "--model", tiny, *SHORT, "--cold")
    assert isinstance(result.exception, ConfigError)
