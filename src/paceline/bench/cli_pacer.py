"""`paceline bench pacer`: arguments are parsed here; a byte that differs is exit code 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from paceline.bench.cli_options import DEVICE, DRAFT_MODEL, DTYPE, JSON, SUBJECT
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.bench.pacer import PacerPlan
    from paceline.bench.subject import SubjectOptions
    from paceline.bench.tasks import Task


def pacer(
    model: str = SUBJECT,
    dtype: str = DTYPE,
    draft_model: str = DRAFT_MODEL,
    tasks: str = typer.Option(
        None, help="Names of tasks with commas between them.", show_default="all; cold: six; in a row: noise"
    ),
    file: Path = typer.Option(None, help='Lines {"task": ..., "prompt": ...}.', show_default="the bundled ones"),
    prompts: int = typer.Option(3, min=1, help="Prompts of each task; cold: one."),
    max_tokens: int = typer.Option(64, min=1, help="Most tokens of an output."),
    budgets: str = typer.Option("3,7,15,31", help="Draft tokens per step: the fixed contenders of the sweep."),
    repeats: int = typer.Option(3, min=1, help="Rounds; their median counts."),
    cold: bool = typer.Option(False, "--cold", help="First requests of fresh processes, without and with experience."),
    in_a_row: int = typer.Option(
        None, "--in-a-row", min=2, help="So many requests that cannot be drafted, one after the other."
    ),
    device: str = DEVICE,
    json: Path = JSON,
) -> None:
    """Compare the pacer with plain decoding and with every drafter alone at its best fixed length, task by task."""
    from paceline.bench.cold import COLD_TASKS
    from paceline.bench.pacer import PacerPlan, chosen_tasks
    from paceline.bench.row import ROW_TASK
    from paceline.bench.shapes import parse_counts
    from paceline.bench.subject import SubjectOptions
    from paceline.bench.tasks import read_tasks
    from paceline.engine.tree import MAX_DEPTH

    plan = PacerPlan(max_tokens, repeats, prompts, min(prompts, 2), parse_counts("budgets", budgets))
    if plan.budgets[-1] >= MAX_DEPTH:
        raise ConfigError(f"budgets has {plan.budgets[-1]}; allowed: below {MAX_DEPTH}")
    if cold and in_a_row:
        raise ConfigError("cold and in_a_row are both given; allowed: one of them")
    subject = SubjectOptions(model, dtype, device, draft_model)
    default = COLD_TASKS if cold else ROW_TASK if in_a_row else None
    names = default if tasks is None and file is None else tasks
    chosen = chosen_tasks(read_tasks(file), names, 1 if cold else in_a_row or prompts)
    if in_a_row:
        _in_a_row(subject, chosen, plan, in_a_row, json)
    else:
        (_cold if cold else _warm)(subject, chosen, plan, json)


def _warm(subject: SubjectOptions, tasks: Sequence[Task], plan: PacerPlan, json: Path | None) -> None:
    from paceline.bench.pacer import bench_pacer
    from paceline.bench.pacer_report import fixed_table, pacer_json, pacer_table
    from paceline.bench.pacer_summary import summarise_pacer
    from paceline.bench.subject import load_subject
    from paceline.console import show, write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    origin = provenance(parse_device(subject.device))
    with load_subject(subject.model, subject.dtype, subject.device, subject.draft_model) as loaded:
        run = bench_pacer(loaded, tasks, plan)
    summary = summarise_pacer(run)
    show(fixed_table(run, summary))
    show(pacer_table(run, summary))
    write_json(json, {"kind": "pacer", "provenance": origin, **pacer_json(run, summary)})
    _fail_for(run.mismatches())


def _cold(subject: SubjectOptions, tasks: Sequence[Task], plan: PacerPlan, json: Path | None) -> None:
    from paceline.bench.cold import ColdPlan, bench_cold, cold_table
    from paceline.console import show, write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    origin = provenance(parse_device(subject.device))
    run = bench_cold(subject, tasks, ColdPlan(plan.max_tokens, plan.repeats, plan.budgets))
    show(cold_table(run))
    write_json(json, {"kind": "cold", "provenance": origin, **run.as_dict()})
    _fail_for(run.mismatches())


def _in_a_row(subject: SubjectOptions, tasks: Sequence[Task], plan: PacerPlan, count: int, json: Path | None) -> None:
    from paceline.bench.row import bench_row, row_json, row_table, summarise_row
    from paceline.bench.subject import load_subject
    from paceline.console import show, write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    origin = provenance(parse_device(subject.device))
    with load_subject(subject.model, subject.dtype, subject.device, subject.draft_model) as loaded:
        run = bench_row(loaded, tasks, plan, count)
    summary = summarise_row(run)
    show(row_table(run, summary))
    write_json(json, {"kind": "row", "provenance": origin, **row_json(run, summary)})
    _fail_for(run.mismatches())


def _fail_for(mismatches: Sequence[str]) -> None:
    """Say each, and end with exit code 1 if there is one."""
    for mismatch in mismatches:
        typer.secho(f"paceline: {mismatch}", fg="red", err=True)
    if mismatches:
        raise typer.Exit(1)
