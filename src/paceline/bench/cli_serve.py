"""`paceline bench serve`: arguments are parsed here; exit code 1 if no request was answered."""

from __future__ import annotations

import asyncio
import json as json_module
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.bench import cli_serve_options as options
from paceline.bench.cli_options import JSON
from paceline.bench.serve.prompts import DATASETS, RandomSizes
from paceline.bench.serve.wanted import FigureOptions, parse_goodput, parse_metrics, parse_percentiles
from paceline.errors import ConfigError

if TYPE_CHECKING:
    from paceline.bench.serve.load import LoadPlan
    from paceline.bench.serve.run import Asked
    from paceline.bench.serve.sweep import SweepPlan


def serve(
    more_goodput: list[str] = options.MORE_GOODPUT,
    base_url: str = options.BASE_URL,
    host: str = options.HOST,
    port: int = options.PORT,
    backend: str = options.BACKEND,
    endpoint: str = options.ENDPOINT,
    model: str = options.MODEL,
    dtype: str = options.DTYPE,
    draft_model: str = options.DRAFT_MODEL,
    dataset_name: str = options.DATASET,
    dataset_path: Path = options.PATH,
    num_prompts: int = options.NUM_PROMPTS,
    num_warmups: int = options.NUM_WARMUPS,
    input_len: int = options.INPUT_LEN,
    output_len: int = options.OUTPUT_LEN,
    ignore_eos: bool = options.IGNORE_EOS,
    request_rate: str = options.RATE,
    burstiness: float = options.BURSTINESS,
    max_concurrency: int = options.CONCURRENCY,
    seed: int = options.SEED,
    extra_body: str = options.EXTRA_BODY,
    deadline_ms: float = options.DEADLINE,
    goodput: list[str] = options.GOODPUT,
    percentile_metrics: str = options.METRIC_NAMES,
    metric_percentiles: str = options.PERCENTILES,
    save_result: bool = options.SAVE,
    save_detailed: bool = options.DETAILED,
    result_filename: Path = options.FILENAME,
    sweep: str = options.SWEEP,
    repeats: int = options.REPEATS,
    json: Path = JSON,
) -> None:
    """Put load on an OpenAI-compatible server and tell what its users wait for."""
    _check_installed()
    from paceline.bench.serve.load import LoadPlan
    from paceline.bench.serve.run import Asked
    from paceline.bench.serve.sweep import SweepPlan
    from paceline.bench.shapes import parse_counts

    _check_dataset(dataset_name)
    shown = FigureOptions(
        parse_percentiles(metric_percentiles),
        parse_metrics(percentile_metrics),
        parse_goodput([*goodput, *(more_goodput or [])]),
        deadline_ms,
    )
    fields = _fields(extra_body, deadline_ms)
    plan = LoadPlan(_rate(request_rate), burstiness, max_concurrency, seed)
    where = Where(base_url or (f"http://{host}:{port}" if port else None), model, dtype, draft_model)
    sizes = RandomSizes(input_len, output_len)
    name = model if where.base_url else None  # our own server is asked for it
    asked = Asked(backend, endpoint, name, fields, dataset_name, dataset_path, num_prompts, sizes, ignore_eos, seed)
    if sweep:
        _sweep(where, asked, SweepPlan(parse_counts("sweep", sweep), repeats, num_warmups, shown), json)
    else:
        _load(where, asked, (plan, shown, num_warmups), Saving(json, save_result, save_detailed, result_filename))


@dataclass(frozen=True)
class Where:
    """A server that runs, or what our own is to serve."""

    base_url: str | None
    model: str | None
    dtype: str
    draft_model: str | None


@dataclass(frozen=True)
class Saving:
    """Which files are written."""

    json: Path | None
    is_wanted: bool
    is_detailed: bool
    filename: Path | None


def _load(where: Where, asked: Asked, how: tuple[LoadPlan, FigureOptions, int], saving: Saving) -> None:
    from paceline.bench.serve.figures import details, figures
    from paceline.bench.serve.report import about, file_name, times_table, totals_table
    from paceline.bench.serve.run import bench_load
    from paceline.console import show, write_json

    plan, shown, num_warmups = how
    with _server(where) as base_url:
        run = asyncio.run(bench_load(base_url, asked, plan, num_warmups))
    found = figures(run.load, shown)
    show(times_table(run.service.model, found, shown))
    show(totals_table(run.service.model, found))
    result = {"kind": "serve", "provenance": _provenance(), **about(run.service, plan, len(run.prompts)), **found}
    if saving.is_detailed:
        result |= details(run.load)
    write_json(saving.json, result)
    if saving.is_wanted or saving.filename:
        write_json(saving.filename or Path(file_name(run.service, plan, result["date"])), result)


def _sweep(where: Where, asked: Asked, plan: SweepPlan, json: Path | None) -> None:
    from paceline.bench.serve.load import LoadPlan
    from paceline.bench.serve.report import about
    from paceline.bench.serve.run import bench_sweep
    from paceline.bench.serve.sweep import sweep_table
    from paceline.console import show, write_json

    with _server(where) as base_url:
        service, sweep = asyncio.run(bench_sweep(base_url, asked, plan))
    show(sweep_table(service.model, sweep))
    head = {"kind": "serve-sweep", "provenance": _provenance(), **about(service, LoadPlan(), sweep.num_prompts)}
    subject = {"model": where.model, "dtype": where.dtype, "clients": plan.clients, "repeats": plan.repeats}
    write_json(json, head | subject | {"cells": sweep.cells()})


@contextmanager
def _server(where: Where) -> Iterator[str]:
    """The base URL of a server: one that runs, or our own while the `with` lasts."""
    from paceline.bench.serve.process import paceline_command, running
    from paceline.console import progress

    if where.base_url is not None:
        yield where.base_url.rstrip("/")
        return
    from paceline.bench.subject import servable

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paceline-bench-")))
        with progress("our own server: starting"):
            name = where.model or "bundled"
            model, draft = servable(name, where.dtype, where.draft_model, folder)
            base_url = stack.enter_context(running(paceline_command(name, model, draft, where.dtype)))
        yield base_url


def _provenance() -> dict[str, Any]:
    """Of the machine that the generator runs on."""
    import torch

    from paceline.provenance import provenance

    return provenance(torch.device("cpu"))


def _check_installed() -> None:
    try:
        import httpx  # noqa: F401
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise ConfigError(f'{error.name} is not installed; allowed: pip install "paceline[server]" first') from error


def _check_dataset(name: str) -> None:
    if name not in DATASETS:
        raise ConfigError(f"dataset-name is {name!r}; allowed: {', '.join(DATASETS)}")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not rate > 0:
        raise ConfigError(f"request-rate is {text!r}; allowed: a number above 0, or inf")
    return rate


def _fields(extra_body: str, deadline_ms: float | None) -> Mapping[str, Any]:
    try:
        fields = json_module.loads(extra_body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"extra-body is {extra_body!r}; allowed: a JSON object")
    return fields if deadline_ms is None else {**fields, "deadline_ms": deadline_ms}
