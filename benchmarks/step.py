"""`paceline bench step` with llama.cpp taking turns too, and the native linears alone.

usage: python benchmarks/step.py [--shape 134m] [--dtype bfloat16] [--rows 1,2,4,8,16,32] [--json FILE]
       python benchmarks/step.py --quantize int4|int8 [--shape 134m|1b] [--json FILE]

llama.cpp competes where `pip install "paceline[peers]"` has been run; where it cannot, a note says why. With
`--quantize` it must, and both read the same files, in llama.cpp's own mixes (`quantised_step.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
import typer
from goal import print_goals
from linears import linear_shares
from llamacpp_forward import REST, CannotCompeteError, open_llamacpp
from quantised_goals import quantised_step_goals
from quantised_step import quantised_step, quantised_table
from transformers import PreTrainedModel

from paceline.bench.forwards import TimedForward, TransformersForward
from paceline.bench.models import random_model
from paceline.bench.shapes import SHAPES, parse_counts
from paceline.bench.step import StepPlan, bench_step, step_context
from paceline.bench.step_report import step_table
from paceline.console import progress, show, write_json
from paceline.errors import PacelineError
from paceline.model.loading import load_target, parse_dtype
from paceline.provenance import provenance

LINEAR_ROWS = (1, 2, 4, 8)
CPU = torch.device("cpu")

app = typer.Typer(add_completion=False)


@contextmanager
def beside_llamacpp(model: PreTrainedModel, plan: StepPlan) -> Iterator[tuple[dict[str, TimedForward], dict[str, Any]]]:
    """llama.cpp by its name where it can compete, and what to say of it."""
    context = step_context(model, plan)
    try:
        forward, about = open_llamacpp(model, context, TransformersForward(model, context), plan.rows)
    except CannotCompeteError as error:
        yield {}, {"absent": str(error)}
        return
    with closing(forward):
        yield {"llama.cpp": forward}, about


def describe(about: dict[str, Any]) -> str:
    """What a reader should know of llama.cpp's figures."""
    if "absent" in about:
        return f"llama.cpp does not compete: {about['absent']}"
    settings = f"llama-cpp-python {about['version']}, {about['threads']} threads, {about['cache']} cache"
    error = f"logits within {about['largest_error']:.1e} (relative) of transformers'"
    threads = "" if about["has_openmp"] else "built without OpenMP, which can slow its forwards of few rows; "
    return f"llama.cpp: {settings}, {error}; {threads}{about['system']}"


@app.command()
def step(
    shape: str = typer.Option("134m", help=f"A random model: {', '.join(SHAPES)}."),
    dtype: str = typer.Option("bfloat16", help="float32, bfloat16 or float16."),
    quantize: str = typer.Option(None, help="int4 or int8: quantised files beside llama.cpp alone."),
    rows: str = typer.Option("1,2,4,8,16,32", help="Rows of one forward to time."),
    context: int = typer.Option(128, min=1, help="Cached tokens before the rows."),
    repeats: int = typer.Option(31, min=1, help="Rounds; their median counts."),
    json: Path = typer.Option(None, "--json", help="Write all figures and their provenance to this file."),
) -> None:
    """Time one forward by row count on the CPU, beside transformers and llama.cpp with the same weights."""
    plan = StepPlan(parse_counts("rows", rows), context, repeats, rest=REST)
    if quantize is not None:
        _quantised(shape, quantize, plan, json)
        return
    model = random_model(shape, parse_dtype(dtype), CPU)
    with beside_llamacpp(model, plan) as (others, about):
        report = bench_step(shape, model, plan, others)
    with progress("the linears alone"):
        shares = linear_shares(load_target(model)[0].decoder.model, LINEAR_ROWS)
    table = step_table(report, plan)
    table.notes.append(describe(about))
    for count, share in shares.items():
        table.notes.append(f"Linears alone: {share:.0%} of the read bandwidth at {count} rows")
    show(table)
    origin = {"kind": "step", "provenance": provenance(CPU), "shape": shape, "context": context}
    write_json(json, origin | report.as_dict() | {"llamacpp": about, "linear_bandwidth_shares": shares})


def _quantised(shape: str, kind: str, plan: StepPlan, json: Path | None) -> None:
    found = {"provenance": provenance(CPU)} | quantised_step(shape, kind, plan)
    show(quantised_table(found))
    print_goals(quantised_step_goals(found))
    write_json(json, found)


if __name__ == "__main__":
    try:
        app()
    except (PacelineError, CannotCompeteError) as error:
        sys.exit(f"step: {error}")
