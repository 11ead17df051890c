"""`paceline bench pacer`: arguments are parsed here; a byte that differs is exit code 1."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.errors import ConfigError


def pacer(
    model: str = typer.Option("bundled", help="bundled, inflated (to 134 M parameters), a folder or a hub name."),
    dtype: str = typer.Option("auto", help="auto (the checkpoint's), float32, bfloat16 or float16."),
    tasks: str = typer.Option(None, help="Names of tasks with commas between them.", show_default="all"),
    file: Path = typer.Option(None, help='Lines {"task": ..., "prompt": ...}.', show_default="the bundled ones"),
    prompts: int = typer.Option(3, min=1, help="Prompts of each task."),
    max_tokens: int = typer.Option(64, min=1, help="Most tokens of an output."),
    budgets: str = typer.Option("3,7,15,31", help="Draft tokens per step: the fixed contenders of the sweep."),
    repeats: int = typer.Option(3, min=1, help="Rounds; their median counts."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
    json: Path = typer.Option(None, "--json", help="Write all figures and their provenance to this file."),
) -> None:
    """Compare the pacer with plain decoding and with every drafter alone at its best fixed length, task by task."""
    from paceline.bench.pacer import PacerPlan, bench_pacer, chosen_tasks
    from paceline.bench.pacer_report import fixed_table, pacer_json, pacer_table
    from paceline.bench.pacer_summary import summarise_pacer
    from paceline.bench.shapes import parse_counts
    from paceline.bench.subject import load_subject
    from paceline.bench.tasks import read_tasks
    from paceline.console import show, write_json
    from paceline.engine.tree import MAX_DEPTH
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    plan = PacerPlan(max_tokens, repeats, prompts, min(prompts, 2), parse_counts("budgets", budgets))
    if plan.budgets[-1] >= MAX_DEPTH:
        raise ConfigError(f"budgets has {plan.budgets[-1]}; allowed: below {MAX_DEPTH}")
    chosen = chosen_tasks(read_tasks(file), tasks, prompts)
    origin = provenance(parse_device(device))
    with load_subject(model, dtype, device) as subject:
        run = bench_pacer(subject, chosen, plan)
    summary = summarise_pacer(run)
    show(fixed_table(run, summary))
    show(pacer_table(run, summary))
    write_json(json, {"kind": "pacer", "provenance": origin, **pacer_json(run, summary)})
    for mismatch in run.mismatches():
        typer.secho(f"paceline: {mismatch}", fg="red", err=True)
    if run.mismatches():
        raise typer.Exit(1)
