"""`paceline bench`: arguments are parsed here; a byte that differs is exit code 1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from paceline.bench.cli_busy import busy
from paceline.bench.cli_doctor import doctor
from paceline.bench.cli_load import load
from paceline.bench.cli_options import DEVICE, JSON
from paceline.bench.cli_pacer import pacer
from paceline.bench.cli_serve import serve
from paceline.bench.shapes import SHAPES, parse_counts
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET
from paceline.errors import ConfigError

app = typer.Typer(help="Measure Paceline beside transformers on this machine.", no_args_is_help=True)
app.command()(pacer)
app.command()(doctor)
app.command()(busy)
app.command()(load)
app.command()(serve)

_DTYPE = typer.Option("auto", help="auto (the checkpoint's; bfloat16 for a shape), float32, bfloat16 or float16.")
_QUANTIZE = typer.Option("auto", help="int8 or int4: Paceline's weights, beside transformers with the unquantised.")
_TEMPERATURE = typer.Option([0.0], min=0.0, help="May be given several times.")
_PROMPTS = typer.Option("bundled", help="bundled, tasks, or a file: docs/metrics.md lists the forms.")
_LIMIT = typer.Option(None, min=1, help="Prompts of each category, drawn by a fixed seed.", show_default="all")


@app.callback()
def _look_around(context: typer.Context) -> None:
    """Say what is in the way of any measurement."""
    from paceline.doctor.machine import warning

    found = None if "--help" in (*context.args, *sys.argv) else warning()
    if found is not None:
        typer.secho(f"paceline: {found}", fg="yellow", err=True)


@app.command()
def step(
    model: str = typer.Argument(None, help="A bundled name, a folder or a hub name; or give --shape."),
    shape: str = typer.Option(None, help=f"A random model instead: {', '.join(SHAPES)}.", show_default="134m"),
    dtype: str = _DTYPE,
    quantize: str = _QUANTIZE,
    rows: str = typer.Option("1,2,4,8,16,32", help="Rows of one forward to time."),
    context: int = typer.Option(128, min=1, help="Cached tokens before the rows."),
    device: str = DEVICE,
    repeats: int = typer.Option(31, min=1, help="Rounds; their median counts."),
    json: Path = JSON,
) -> None:
    """Time one forward by row count, beside transformers with the same weights."""
    from paceline.bench.models import random_model
    from paceline.bench.step import StepPlan, bench_step
    from paceline.bench.step_report import step_table
    from paceline.console import progress, show, write_json
    from paceline.model.loading import parse_device, parse_dtype
    from paceline.model.pretrained import read_model
    from paceline.provenance import provenance

    if model is not None and shape is not None:
        raise ConfigError(f"both MODEL ({model}) and --shape ({shape}) are given; allowed: one of them")
    where = parse_device(device)
    plan = StepPlan(parse_counts("rows", rows), context, repeats, dtype=quantize)
    origin = provenance(where)
    shape = (shape or "134m") if model is None else None
    name = model or shape or ""
    with progress(f"{name}: loading"):
        if shape is None:
            stock = read_model(name, parse_dtype(dtype), where)
        else:
            stock = random_model(shape, parse_dtype("bfloat16" if dtype == "auto" else dtype), where)
    report = bench_step(name, stock, plan)
    show(step_table(report, plan))
    about = {"kind": "step", "provenance": origin, "shape": shape, "context": context}
    write_json(json, about | report.as_dict())


@app.command()
def decode(
    model: str = typer.Option(DEFAULT_TARGET, help="A bundled name, a folder or a hub name."),
    draft: str = typer.Option(None, help="A draft model for it.", show_default="the bundled one for the bundled model"),
    max_tokens: int = typer.Option(96, min=1, help="Tokens of every output."),
    temperature: list[float] = _TEMPERATURE,
    budgets: str = typer.Option("3,7,15", help="Draft nodes per step: the fixed contenders of the sweep."),
    prompts: str = _PROMPTS,
    limit: int = _LIMIT,
    repeats: int = typer.Option(3, min=1, help="Outputs per prompt and contender; the median counts."),
    device: str = DEVICE,
    dtype: str = _DTYPE,
    json: Path = JSON,
) -> None:
    """Decode the same prompts with transformers and with Paceline, and compare speed and bytes."""
    from paceline.bench.decode import DecodePlan
    from paceline.console import write_json
    from paceline.model.loading import parse_device
    from paceline.provenance import provenance
    from paceline.text.prompt_sets import read_prompt_set

    plans = [DecodePlan(max_tokens, value, repeats) for value in temperature]
    sweep, texts = parse_counts("budgets", budgets), read_prompt_set(prompts, limit)
    origin = provenance(parse_device(device))
    known = DEFAULT_DRAFT if model == DEFAULT_TARGET else None
    runs = _decode_pair((model, draft or known, device, dtype), sweep, texts, plans)
    write_json(json, {"kind": "decode", "provenance": origin, "runs": runs})
    different = [mismatch for run in runs for mismatch in run["mismatches"]]
    if different:
        typer.secho(f"paceline: {len(different)} outputs are not the bytes of plain decoding", fg="red", err=True)
        raise typer.Exit(1)


def _decode_pair(pair: tuple[str, str | None, str, str], sweep: Any, texts: Any, plans: Any) -> list[dict[str, Any]]:
    from paceline.bench.contenders import contenders, load_pair
    from paceline.bench.decode import bench_decode
    from paceline.bench.decode_report import as_json, categories_table, contenders_table
    from paceline.bench.summary import summarise
    from paceline.console import show

    results = []
    with load_pair(*pair) as loaded:
        for plan in plans:
            run = bench_decode(loaded, contenders(loaded, sweep), texts, plan)
            summary = summarise(run)
            show(contenders_table(run, summary))
            show(categories_table(run, summary))
            for mismatch in run.mismatches():
                typer.secho(f"paceline: {mismatch}", fg="red", err=True)
            results.append(as_json(run, summary))
    return results
