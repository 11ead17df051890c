"""`paceline bench busy`: arguments are parsed here; a token that differs is exit code 1."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.bench.cli_options import DEVICE, DRAFT_MODEL, DTYPE, JSON, SUBJECT


def busy(
    model: str = SUBJECT,
    dtype: str = DTYPE,
    draft_model: str = DRAFT_MODEL,
    beside: str = typer.Option("1,2,4", help="Numbers of processes that do nothing but compute."),
    task: str = typer.Option("story", help="The bundled task whose first prompt is decoded, greedily."),
    max_tokens: int = typer.Option(48, min=1, help="Tokens of every output."),
    repeats: int = typer.Option(5, min=1, help="Rounds; their median counts."),
    threads: int = typer.Option(None, min=1, help="Threads of either side.", show_default="torch's choice"),
    device: str = DEVICE,
    json: Path = JSON,
) -> None:
    """Decode alone and beside busy processes, next to transformers in a process of its own."""
    import torch

    from paceline.bench.busy import BusyPlan, bench_busy, busy_table
    from paceline.bench.pacer import chosen_tasks
    from paceline.bench.shapes import parse_counts
    from paceline.bench.subject import SubjectOptions
    from paceline.bench.tasks import read_tasks
    from paceline.console import show, write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    (first,) = chosen_tasks(read_tasks(None), task, 1)
    counts = parse_counts("beside", beside)
    plan = BusyPlan(first.prompt, threads or torch.get_num_threads(), max_tokens, repeats, counts)
    origin = provenance(parse_device(device))
    run = bench_busy(SubjectOptions(model, dtype, device, draft_model), plan)
    show(busy_table(run))
    write_json(json, {"kind": "busy", "provenance": origin, **run.as_dict()})
    for mismatch in run.mismatches():
        typer.secho(f"paceline: {mismatch}", fg="red", err=True)
    if run.mismatches():
        raise typer.Exit(1)
