"""`paceline bench load`: arguments are parsed here."""

from __future__ import annotations

from pathlib import Path

import typer

from paceline.bundled import DEFAULT_TARGET


def load(
    model: str = typer.Option(DEFAULT_TARGET, help="A bundled name, a folder or a hub name."),
    dtype: str = typer.Option("auto", help="auto (the checkpoint's), float32, bfloat16 or float16."),
    repeats: int = typer.Option(5, min=1, help="Rounds of fresh processes, after one that is not counted."),
    json: Path = typer.Option(None, "--json", help="Write all figures and their provenance to this file."),
) -> None:
    """Time fresh processes from their start to the first token, without and with kept proofs, beside transformers."""
    import torch

    from paceline.bench.load import NAMES, bench_load, load_table, num_parameters
    from paceline.bundled import bundled_path
    from paceline.console import progress, show, write_json
    from paceline.provenance import provenance

    folder = str(bundled_path(model) or model)
    with progress(f"{model}: loading", (repeats + 1) * len(NAMES)) as advance:
        run = bench_load(folder, dtype, repeats, advance)
    show(load_table(folder, run))
    origin = provenance(torch.device("cpu"))
    about = {"model": model, "dtype": dtype, "num_parameters": num_parameters(folder)}
    write_json(json, {"kind": "load", "provenance": origin} | about | run.as_dict())
