"""One table about a GPU: are speculative bits those of plain decoding, and what does a forward cost by rows?

usage: scripts/gpu_check [--json FILE]            on a machine with CUDA; under 8 minutes
       scripts/gpu_check --device cpu --small     the same code on tiny models, to test this script

Exit code 0: every bit equal. 1: some bit differs, or a model was refused. 2: there is no such device.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is random: nothing is to be fetched

import torch
from same_bits import ExactPlan, check_exactness

from paceline.bench.models import random_model
from paceline.bench.step import StepPlan, StepReport, bench_step
from paceline.console import Table, show, write_json
from paceline.errors import PacelineError, first_line
from paceline.model.loading import load_target
from paceline.provenance import provenance

LIMIT = 8 * 60.0  # seconds for everything
ROWS = (1, 2, 4, 8, 16, 32, 64)
WIDE = 0.05  # deviation of the weights where bits are compared: near ties and flat attention would hide faults


@dataclass(frozen=True)
class Scope:
    """What to run, and how long each part may begin: a part that would begin later is left out."""

    exact: tuple[tuple[str, torch.dtype], ...]
    exact_plan: ExactPlan
    step_shapes: tuple[str, ...]
    step_plan: StepPlan
    latest_start: float = LIMIT * 0.7


FULL = Scope(
    exact=(("134m", torch.float32), ("134m", torch.bfloat16)),
    exact_plan=ExactPlan(),
    step_shapes=("1b", "8b"),
    step_plan=StepPlan(ROWS, repeats=31, seconds=60.0),
)
SMALL = Scope(
    exact=(("tiny", torch.float32), ("tiny", torch.bfloat16)),
    exact_plan=ExactPlan(prompt_lengths=(3, 70), max_tokens=8),
    step_shapes=("tiny",),
    step_plan=StepPlan(ROWS, repeats=1),
)


@dataclass
class Check:
    """The table, the same as JSON, and the verdict so far."""

    device: torch.device
    scope: Scope
    table: Table
    results: dict[str, Any]
    is_exact: bool = True
    started: float = field(default_factory=time.perf_counter)

    def part(self, name: str, run: Callable[[], None]) -> None:
        """Run one part; a refusal or a lack of memory is a line of the table."""
        elapsed = time.perf_counter() - self.started
        print(f"[{elapsed:4.0f} s] {name}", file=sys.stderr, flush=True)
        try:
            if elapsed > self.scope.latest_start:
                raise TimeoutError(f"left out: {elapsed:.0f} s have passed")
            run()
        except (PacelineError, TimeoutError, torch.OutOfMemoryError) as error:
            self.is_exact = self.is_exact and not isinstance(error, PacelineError)
            self.add(name, f"{type(error).__name__}: {first_line(error)}", {})
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def add(self, name: str, result: str, by_rows: dict[int, float]) -> None:
        """A line of the table."""
        cells = [f"{by_rows[rows]:.2f}" if rows in by_rows else "" for rows in ROWS]
        self.table.rows.append((name, *cells, result))

    def exactness(self, shape: str, dtype: torch.dtype) -> None:
        """Compare bits on one random model."""
        model = random_model(shape, dtype, self.device, WIDE)
        target, info = load_target(model, cache_tokens=4096)
        name = f"{shape} {info.numerics['dtype']}"
        for check in check_exactness(target, self.scope.exact_plan):
            self.is_exact = self.is_exact and check.is_exact
            self.add(f"{name}, {check.name}", str(check), {})
            self.results["exactness"].append(vars(check) | {"model": name, "exact": check.is_exact})
        self.table.notes.append(f"{name}: {info.verdict}")

    def step(self, shape: str) -> None:
        """Time the forwards of one random model in bfloat16."""
        model = random_model(shape, torch.bfloat16, self.device)
        report = bench_step(shape, model, self.scope.step_plan)
        self.results["step"].append(report.as_dict())
        ours = {row.rows: median(row.paceline) * 1e3 for row in report.rows if row.paceline}
        theirs = {row.rows: median(row.transformers) * 1e3 for row in report.rows}
        self.add(f"{shape} Paceline, ms", _floor(report), ours)
        noise = f"noise {report.noise:.1%}" if report.noise is not None else ""
        self.add(f"{shape} transformers, ms", noise, theirs)
        self.table.notes.append(f"{shape}: {report.numerics['path']}, row counts {report.numerics['row_counts']}")


def _floor(report: StepReport) -> str:
    speed = report.bandwidth.best / 1e9
    return f"floor {report.floor * 1e3:.2f} ms: {report.paceline_bytes / 1e9:.2f} GB at {speed:.0f} GB/s"


def run(device: torch.device, scope: Scope) -> Check:
    """All parts; the exactness of small models first, since nothing else matters without it."""
    origin = provenance(device)
    versions = f"torch {torch.__version__}, transformers {origin['versions']['transformers']}"
    title = f"{origin['processor']}, {versions}: bits, and ms by rows in a forward"
    table = Table(title, ("what", *(f"{rows} rows" if rows > 1 else "1 row" for rows in ROWS), "result"))
    check = Check(device, scope, table, {"provenance": origin, "exactness": [], "step": []})
    for shape, dtype in scope.exact:
        name = f"{shape} {str(dtype).removeprefix('torch.')}"
        check.part(f"{name}, exactness", lambda s=shape, d=dtype: check.exactness(s, d))
    for shape in scope.step_shapes:
        check.part(f"{shape} bfloat16, forwards", lambda s=shape: check.step(s))
    return check


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--small", action="store_true", help="tiny models and one round")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu" and not options.small:
        parser.error("--device cpu needs --small: the large models are for a GPU")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu_check: this machine has no CUDA device that torch can use", file=sys.stderr)
        return 2
    check = run(device, SMALL if options.small else FULL)
    show(check.table)
    print("every bit equal" if check.is_exact else "NOT EXACT: see the lines above")
    write_json(options.json, check.results | {"exact": check.is_exact})
    return 0 if check.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
