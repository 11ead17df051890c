"""The lines that `paceline bench pacer` is judged by. Each knows when it applies: some are for one target alone."""

from __future__ import annotations

from paceline.bench.pacer_summary import HOST_ROWS, Host, PacerSummary
from paceline.bench.reach import Reach
from paceline.bench.subject import INFLATED

STORY, HOT_STORY, NOISE = "story", "story-1", "noise"
REPEATING = ("copy", "edit")


def pacer_reach(summary: PacerSummary, name: str, dtype: str) -> list[Reach]:
    """The lines for a target of this name and dtype, as far as their tasks were measured."""
    lines = [_reach_best(summary), _reach_mix(summary)]
    if NOISE in summary.tasks:
        lines.append(_reach_noise(summary))
    if (name, dtype) == (INFLATED, "bfloat16"):
        lines.append(_reach_speed(summary))
        lines += [_reach_repeating(summary, task) for task in REPEATING if task in summary.tasks]
    if {STORY, HOT_STORY} <= summary.tasks.keys():
        lines.append(_reach_hot(summary))
    if summary.host is not None:
        lines.append(_reach_host(summary.host))
    return [*lines, _reach_guard(summary), _reach_bytes(summary)]


def _reach_best(summary: PacerSummary) -> Reach:
    worst = min(summary.tasks.values(), key=lambda task: task.share)
    figure = f"{worst.share:.2f} at worst, in {worst.task}: {worst.pacer} against {worst.fixed[worst.best]:.2f} with "
    text = "the pacer is at least 0.95 of the best fixed setting in every task"
    return Reach(text, figure + worst.best, worst.share >= 0.95)


def _reach_mix(summary: PacerSummary) -> Reach:
    best = max(summary.mix_fixed, key=lambda name: summary.mix_fixed[name])
    figure = f"{summary.mix} against {summary.mix_fixed[best]:.2f} with {best}"
    text = "the pacer is better than every single fixed setting over the mix"
    return Reach(text, figure, summary.mix.value > summary.mix_fixed[best])


def _reach_noise(summary: PacerSummary) -> Reach:
    task = summary.tasks[NOISE]
    figure = f"{task.pacer}; plain against itself {task.noise:.2f}"
    text = "the pacer is at least 0.98 of plain on text that cannot be drafted"
    return Reach(text, figure, task.pacer.value >= 0.98)


def _reach_speed(summary: PacerSummary) -> Reach:
    figure = f"{summary.mix}; geometric mean of the tasks {summary.mix_mean:.2f}"
    return Reach("the pacer is at least 2.2 x plain on the mix", figure, summary.mix.value >= 2.2)


def _reach_repeating(summary: PacerSummary, name: str) -> Reach:
    task = summary.tasks[name]
    figure = f"{task.pacer}; without prefill {task.decoding:.2f}"
    return Reach(f"the pacer is at least 5 x plain in {name}", figure, task.pacer.value >= 5.0)


def _reach_hot(summary: PacerSummary) -> Reach:
    cold, hot = (summary.tasks[task].pacer.value for task in (STORY, HOT_STORY))
    figure = f"{hot / cold:.2f}: {hot:.2f} against {cold:.2f}"
    text = "at temperature 1 a story's speed-up is at least 0.8 of that at temperature 0"
    return Reach(text, figure, hot >= 0.8 * cold)


def _reach_host(host: Host) -> Reach:
    low, high = HOST_ROWS
    figure = f"{host.median * 1e3:.2f} ms, nine in ten {host.upper * 1e3:.2f}, {host.num_steps} steps"
    text = f"drafting and pacing beside the draft model take at most 0.3 ms in steps of {low} to {high} rows"
    return Reach(text, figure, host.median <= 3e-4)


def _reach_guard(summary: PacerSummary) -> Reach:
    guard = summary.guard
    figure = (
        f"{guard.num_over_bound} of {guard.num_runs} runs over it; {guard.num_over} over (1 + eps) plain + 2 t1 alone, "
        f"by {guard.most_over:.1%} at most; surprise {guard.median_surprise:.1%} of a run's time, at most "
        f"{guard.most_surprise:.1%}"
    )
    text = "no run takes longer than the guard's bound with its surprise term"
    return Reach(text, figure, guard.num_over_bound == 0)


def _reach_bytes(summary: PacerSummary) -> Reach:
    same = summary.num_outputs - summary.num_mismatches
    figure = f"{same} of {summary.num_outputs} outputs"
    text = "every output has the tokens and log-probabilities of plain decoding"
    return Reach(text, figure, summary.num_mismatches == 0)
