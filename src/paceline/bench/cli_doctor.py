"""`paceline bench doctor`: arguments are parsed here."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.bench.cli_options import DEVICE, DTYPE, JSON, SUBJECT


def doctor(
    model: str = SUBJECT,
    dtype: str = DTYPE,
    tasks: str = typer.Option(None, help="Names of tasks with commas between them.", show_default="all"),
    prompts: int = typer.Option(3, min=1, help="Prompts of each task."),
    max_tokens: int = typer.Option(64, min=1, help="Most tokens of an output."),
    repeats: int = typer.Option(3, min=1, help="Measured rounds; their median counts."),
    device: str = DEVICE,
    json: Path = JSON,
) -> None:
    """Hold the predictions of `paceline doctor` against measured runs of the bench tasks."""
    from paceline.bench.doctor import bench_doctor, doctor_table, num_doctor_units
    from paceline.bench.pacer import chosen_tasks
    from paceline.bench.subject import load_subject
    from paceline.bench.tasks import read_tasks
    from paceline.console import progress, show, write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance

    chosen = chosen_tasks(read_tasks(None), tasks, prompts)
    origin = provenance(parse_device(device))
    with (
        load_subject(model, dtype, device) as subject,
        progress(f"{model}: predicting and measuring", num_doctor_units(chosen, repeats)) as advance,
    ):
        run = bench_doctor(subject, chosen, max_tokens, repeats, advance)
        title = f"{subject.name}, {subject.dtype}"
    show(doctor_table(title, run))
    write_json(json, {"kind": "doctor", "provenance": origin, **run.as_dict()})
