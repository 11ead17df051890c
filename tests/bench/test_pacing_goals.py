"""Our goals for the pacer: each line is reached on its threshold and not beyond it, and belongs to certain targets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from goal import Goal
from pacer_runs import prompt, run_of, sample, seconds
from pacing_goals import cold_goals, pacer_goals, row_goals

from paceline.bench.cold import COLD, KEPT, ColdPlan, ColdRun, ColdVisit
from paceline.bench.pacer import PACER, PLAIN, PacerRun
from paceline.bench.pacer_report import pacer_json
from paceline.bench.pacer_summary import summarise_pacer
from paceline.bench.row import row_json, summarise_row
from paceline.bench.subject import SubjectOptions
from paceline.bench.watch import HostStep


def by_text(found: list[Goal]) -> dict[str, bool]:
    return {goal.text: goal.is_reached for goal in found}


def reread(content: dict[str, Any]) -> Any:
    """As it comes back from a file."""
    return json.loads(json.dumps(content))


# bench pacer


def pacer_lines(run: PacerRun, **changes: str) -> dict[str, bool]:
    return by_text(pacer_goals(reread(pacer_json(run, summarise_pacer(run)) | changes)))


def made_up(**tasks: dict[str, float]) -> PacerRun:
    return run_of([prompt(task.replace("_", "-"), figures) for task, figures in tasks.items()])


def reached(words: str, run: PacerRun) -> bool:
    found = [is_reached for text, is_reached in pacer_lines(run).items() if words in text]
    assert len(found) == 1, words
    return found[0]


@pytest.mark.parametrize(("pacer", "expected"), [(4.1, True), (4.15, False)])
def test_the_best_fixed_contender_is_the_measure_in_every_task(pacer: float, expected: bool) -> None:
    run = made_up(story=seconds(2.0), edit=seconds(pacer, far7=4.0))
    assert reached("0.97 of the best fixed", run) is expected


@pytest.mark.parametrize(("story", "expected"), [(4.0, True), (4.4, False)])
def test_no_single_contender_may_be_better_over_the_mix(story: float, expected: bool) -> None:
    run = made_up(story=seconds(story, near7=4.0), edit=seconds(4.0, near7=4.2))
    assert reached("better than every single", run) is expected


@pytest.mark.parametrize(("pacer", "expected"), [(8.1, True), (8.2, False)])
def test_noise_is_at_most_a_fiftieth_slower(pacer: float, expected: bool) -> None:
    assert reached("cannot be drafted", made_up(noise=seconds(pacer))) is expected


@pytest.mark.parametrize(("pacer", "expected"), [(4.2, True), (4.3, False)])
def test_the_mix_is_nearly_twice_as_fast(pacer: float, expected: bool) -> None:
    assert reached("1.9 x plain on the mix", made_up(story=seconds(pacer))) is expected


@pytest.mark.parametrize(("words", "slowest"), [("0.98 of plain on the mix", 8.16), ("1.3 x plain in copies", 6.15)])
def test_a_model_so_fast_that_hardly_anything_pays_has_lines_of_its_own(words: str, slowest: float) -> None:
    for pacer, expected in ((slowest, True), (slowest * 1.02, False)):
        lines = pacer_lines(made_up(copy=seconds(pacer)), model="bundled")
        assert [is_reached for text, is_reached in lines.items() if words in text] == [expected]


@pytest.mark.parametrize(("host", "expected"), [(3.9e-4, True), (4.1e-4, False)])
def test_host_time_is_that_of_large_steps(host: float, expected: bool) -> None:
    steps = [HostStep(1, 1.0), HostStep(12, host), HostStep(16, host), HostStep(16, host), HostStep(17, 1.0)]
    assert reached("0.4 ms in steps", run_of([prompt("story", seconds(4.0))], steps)) is expected


@pytest.mark.parametrize(("elapsed", "expected"), [(1.0, True), (1.12, True), (1.16, False)])
def test_no_run_may_exceed_the_guards_bound(elapsed: float, expected: bool) -> None:
    one = prompt("story", seconds(4.0))
    one.timed[PACER][1] = sample(4.0, elapsed=elapsed, allowed=1.1, cost_error=0.05)
    assert reached("guard's bound", run_of([one])) is expected


def test_no_output_may_differ() -> None:
    one = prompt("story", seconds(4.0))
    assert reached("every output has", run_of([one]))
    one.swept[PACER] = sample(4.0, tokens=(5, 6, 7, 9))
    assert not reached("every output has", run_of([one]))


def test_lines_of_one_target_are_not_asked_of_others() -> None:
    run = made_up(story=seconds(4.0), copy=seconds(4.0))
    common = pacer_lines(run, dtype="float32").keys()
    assert pacer_lines(run, model="another").keys() == common
    assert len(pacer_lines(run).keys() - common) == 1
    assert len(pacer_lines(run, model="bundled").keys() - common) == 2
    assert not any("cannot be drafted" in text for text in pacer_lines(run))


# bench pacer --in-a-row


def row(pacer: tuple[float, ...], **of_pacing: float) -> list[Goal]:
    """Requests that take eight seconds plainly, and so long under the pacer."""
    requests = [prompt("noise", seconds(time)) for time in pacer]
    requests[0].timed[PACER][2] = sample(2 * pacer[0], **of_pacing)
    run = run_of(requests)
    return row_goals(reread(row_json(run, summarise_row(run))))


@pytest.mark.parametrize(
    ("pacer", "whole", "each"),
    [
        ((8.16, 8.16), True, True),
        ((8.17, 8.17), False, True),
        ((8.88, 7.0), True, True),
        ((8.9, 7.0), True, False),
        ((9.0, 8.0), False, False),
    ],
)
def test_requests_in_a_row_are_held_together_and_each(pacer: tuple[float, ...], whole: bool, each: bool) -> None:
    lines = row(pacer)
    assert [line.is_reached for line in lines] == [whole, each, True]
    assert lines[0].text.startswith("2 requests in a row")


def test_requests_in_a_row_keep_the_guards_bound() -> None:
    assert [line.is_reached for line in row((8.0, 8.0), elapsed=1.16)] == [True, True, False]


# bench pacer --cold


def first_requests(story: tuple[float, float], copy: tuple[float, float], draft: str | None = "inflated") -> list[Goal]:
    """Shares of the best fixed contender, cold and kept."""
    run = ColdRun(SubjectOptions("inflated", "bfloat16", "cpu", draft), ColdPlan(repeats=1))
    for task, shares in (("story", story), ("copy", copy)):
        visits = [ColdVisit(1.0 / share, 4, {PLAIN: [1.0]}, {}, {}, []) for share in shares]
        run.visits[task] = {COLD: visits[:1], KEPT: visits[1:]}
    return cold_goals(reread(run.as_dict()))


@pytest.mark.parametrize(
    ("story", "copy", "reached"),
    [
        ((0.86, 0.96), (0.86, 0.96), [True, True]),
        ((0.84, 0.96), (0.86, 0.96), [False, True]),
        ((1.20, 0.96), (0.86, 0.94), [True, False]),
    ],
)
def test_the_worst_first_request_decides(
    story: tuple[float, float], copy: tuple[float, float], reached: list[bool]
) -> None:
    assert [line.is_reached for line in first_requests(story, copy)] == reached


def test_first_requests_are_those_of_one_pair() -> None:
    assert first_requests((0.1, 0.1), (0.1, 0.1), None) == []
