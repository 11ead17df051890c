"""A measurement of the pacer as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from paceline.bench.pacer import PacerPrompt, PacerRun
from paceline.bench.pacer_summary import PacerSummary, TaskSummary
from paceline.console import Table

_COLUMNS = (
    "task",
    "plain ms/token",
    "pacer x plain",
    "without prefill",
    "cold",
    "best fixed",
    "",
    "share",
    "τ",
    "noise",
)


def pacer_table(run: PacerRun, summary: PacerSummary) -> Table:
    """One line per task, and one for the mix."""
    plan = run.plan
    title = (
        f"{run.name}, {run.dtype}: {len(run.prompts)} prompts, at most {plan.max_tokens} tokens each, "
        f"median of {plan.repeats}"
    )
    table = Table(title, _COLUMNS)
    table.rows += [_task_cells(task) for task in summary.tasks.values()]
    best = max(summary.mix_fixed, key=lambda name: summary.mix_fixed[name])
    fixed = summary.mix_fixed[best]
    share = f"{summary.mix.value / fixed:.2f}"
    table.rows.append(("the mix", "", str(summary.mix), "", "", best, f"{fixed:.2f}", share, "", ""))
    table.notes += _notes(run)
    return table


def _task_cells(task: TaskSummary) -> tuple[str, ...]:
    figures = (task.fixed[task.best], task.share, task.mean_acceptance_length, task.noise)
    pacer = (str(task.pacer), f"{task.decoding:.2f}", f"{task.cold:.2f}")
    return (task.task, f"{task.plain_seconds * 1e3:.2f}", *pacer, task.best, *(f"{value:.2f}" for value in figures))


def fixed_table(run: PacerRun, summary: PacerSummary) -> Table:
    """Every drafter alone: speed-ups over plain by task."""
    table = Table("Fixed contenders over plain, and why the pacer drafted no further", ("task", "fixed", "stops"))
    for task in summary.tasks.values():
        ordered = sorted(task.fixed.items(), key=lambda item: -item[1])
        steps = sum(task.stops.values())
        stops = ", ".join(f"{why} {count / steps:.0%}" for why, count in task.stops.items())
        table.rows.append((task.task, ", ".join(f"{name}: {value:.2f}" for name, value in ordered), stops))
    return table


def _notes(run: PacerRun) -> list[str]:
    numerics = run.numerics
    peak = max(s.stats["memory"]["peak_bytes"] for p in run.prompts for samples in p.timed.values() for s in samples)
    return [
        f"Numeric path: {numerics['path']} on {numerics['instruction_set']}, {numerics['threads']} threads; "
        f"{peak / 1e6:.0f} MB at most",
        "Speed-ups: whole calls, prefill included; 95 % intervals over rounds. Noise: plain over plain. Cold: the "
        "pacer's first round, with no experience at its beginning",
        "Fixed contenders: one drafter, so many draft tokens a step; the best of a sweep, measured again in turns",
        "Each contender is a tenant of its own in each round of a task: its drafters know the task's earlier prompts "
        "and never the prompt's own answer",
    ]


def pacer_json(run: PacerRun, summary: PacerSummary) -> dict[str, Any]:
    """Everything measured."""
    return {
        "model": run.name,
        "dtype": run.dtype,
        "numerics": run.numerics,
        "plan": asdict(run.plan),
        "summary": summary.as_dict(),
        "same_bytes": not run.mismatches(),
        "host_steps": [asdict(step) for step in run.steps],
        "prompts": [_prompt(prompt) for prompt in run.prompts],
    }


def _prompt(run: PacerPrompt) -> dict[str, Any]:
    return {
        "task": run.task.task,
        "num_prompt_tokens": len(run.ids),
        "tokens": list(next(iter(run.timed.values()))[0].tokens),
        "swept_seconds": {name: sample.seconds for name, sample in run.swept.items()},
        "seconds": {name: [sample.seconds for sample in samples] for name, samples in run.timed.items()},
        "stats": {name: [_stats(sample.stats) for sample in samples] for name, samples in run.timed.items()},
    }


def _stats(stats: dict[str, Any]) -> dict[str, Any]:
    """Statistics without what is the same for all."""
    return {key: value for key, value in stats.items() if key not in ("numerics", "memory")}
