"""`paceline bench step`: what one forward costs by row count, beside transformers with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.bench.forwards import PacelineForward, TransformersForward
from paceline.bench.memory import Bandwidth, bytes_read, measure_bandwidth
from paceline.bench.provenance import has_bfloat16
from paceline.bench.tables import Reach, Table, progress
from paceline.bench.timing import Contestant, Ratio, interleave, ratio, self_ratio
from paceline.errors import ConfigError
from paceline.target.hf import HFTarget
from paceline.target.loading import load_target


@dataclass(frozen=True)
class StepPlan:
    """What to time: row counts over a context, so many rounds, within so many seconds."""

    rows: tuple[int, ...]
    context: int = 128
    repeats: int = 31
    seconds: float = 300.0


@dataclass(frozen=True)
class StepRow:
    """Seconds of each round at one row count; Paceline's are empty where the rows do not fit."""

    rows: int
    padded: int | None  # Paceline pads to a row count whose bits are proven
    paceline: list[float]
    transformers: list[float]

    @property
    def against_transformers(self) -> Ratio | None:
        """Paceline's time over transformers'."""
        return ratio(self.paceline, self.transformers) if self.paceline else None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        against = self.against_transformers
        return {
            "rows": self.rows,
            "padded_rows": self.padded,
            "paceline_ms": median(self.paceline) * 1e3 if self.paceline else None,
            "transformers_ms": median(self.transformers) * 1e3,
            "paceline_over_transformers": against.as_dict() if against else None,
            "noise": self_ratio(self.transformers),
            "paceline_seconds": self.paceline,
            "transformers_seconds": self.transformers,
        }


@dataclass(frozen=True)
class StepReport:
    """The measurement of one model."""

    name: str
    numerics: dict[str, Any]
    rows: list[StepRow]
    bandwidth: Bandwidth
    paceline_bytes: int  # of weights that one forward reads
    transformers_bytes: int

    @property
    def floor(self) -> float:
        """Seconds that reading Paceline's weights once takes at the measured bandwidth."""
        return self.paceline_bytes / self.bandwidth.best

    @property
    def noise(self) -> float | None:
        """The largest deviation of transformers against itself over the row counts, as a share."""
        ratios = [self_ratio(row.transformers) for row in self.rows]
        return max((abs(r - 1.0) for r in ratios if r is not None), default=None)

    def row(self, rows: int) -> StepRow | None:
        """The measurement at one row count, if Paceline could run it."""
        return next((row for row in self.rows if row.rows == rows and row.paceline), None)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "model": self.name,
            "numerics": self.numerics,
            "rows": [row.as_dict() for row in self.rows],
            "noise": self.noise,
            "read_bytes_per_second": self.bandwidth.read,
            "copy_bytes_per_second": self.bandwidth.copy,
            "weight_bytes_read": {"paceline": self.paceline_bytes, "transformers": self.transformers_bytes},
            "floor_ms": self.floor * 1e3,
        }


def bench_step(name: str, model: PreTrainedModel, plan: StepPlan) -> StepReport:
    """Time a stock model beside Paceline over the same weights."""
    with progress(f"{name}: probing and measuring bandwidth"):
        target, info = load_target(model, cache_tokens=max(4096, plan.context + 1024))
        bandwidth = measure_bandwidth(model.device)
    if plan.context + max(plan.rows) > target.max_length:
        most = target.max_length - max(plan.rows)
        raise ConfigError(f"context is {plan.context}; allowed for {name}: at most {most}")
    with progress(f"{name}: forwards", plan.repeats + 1) as advance:
        rows = _time_rows(model, target, plan, advance)
    return StepReport(
        name,
        info.numerics,
        rows,
        bandwidth,
        bytes_read(target.decoder.model),
        bytes_read(model),
    )


def _time_rows(model: PreTrainedModel, target: HFTarget, plan: StepPlan, advance: Callable[[], None]) -> list[StepRow]:
    generator = torch.Generator().manual_seed(0)
    context = torch.randint(target.vocab_size, (plan.context,), generator=generator).tolist()
    ours = PacelineForward(target.decoder, context)
    theirs = TransformersForward(model, context)
    contestants: list[Contestant] = []
    for count in plan.rows:
        if ours.padded(count) is not None:
            contestants.append(ours.contestant(f"paceline {count}", count))
        contestants.append(theirs.contestant(f"transformers {count}", count))
    samples = interleave(contestants, plan.repeats, plan.seconds, advance)
    ours.close()
    return [
        StepRow(n, ours.padded(n), samples.get(f"paceline {n}", []), samples[f"transformers {n}"]) for n in plan.rows
    ]


def step_reach(report: StepReport, shape: str | None) -> list[Reach]:
    """The lines that the 134m shape is to reach in bfloat16; none for other models."""
    one = report.row(1)
    if shape != "134m" or report.numerics["dtype"] != "bfloat16" or one is None:
        return []
    lines = []
    for rows, limit in ((8, 1.3), (16, 1.8)):
        many = report.row(rows)
        if many is not None:
            cost = ratio(many.paceline, one.paceline)
            text = f"{rows} rows cost at most {limit} x 1 row"
            lines.append(Reach(text, f"{cost} x", cost.value <= limit))
    against = ratio(one.paceline, one.transformers)
    text = "1 row is no slower than transformers' 1 row"
    return [*lines, Reach(text, f"{against} x its time", against.value <= 1.0)]


def step_table(report: StepReport, plan: StepPlan) -> Table:
    """The report as a table."""
    columns = (
        "rows",
        "padded to",
        "Paceline ms",
        "x 1 row",
        "transformers ms",
        "x 1 row",
        "Paceline / transformers",
    )
    rounds = len(report.rows[0].transformers)
    title = f"{report.name}, {report.numerics['dtype']}, context {plan.context}: one forward, median of {rounds}"
    table = Table(title, (*columns, "transformers / itself"))
    first = report.rows[0]
    for row in report.rows:
        against, noise = row.against_transformers, self_ratio(row.transformers)
        ours = median(row.paceline) if row.paceline else None
        scale = median(first.paceline) if first.paceline and first.rows == 1 else None
        their_scale = median(first.transformers) if first.rows == 1 else None
        cells = (
            str(row.padded or "does not fit"),
            _cell(ours, 1e3),
            _cell(ours, 1 / scale if scale else None),
            _cell(median(row.transformers), 1e3),
            _cell(median(row.transformers), 1 / their_scale if their_scale else None),
            str(against or "-"),
            _cell(noise, 1),
        )
        table.rows.append((str(row.rows), *cells))
    table.notes += _notes(report)
    return table


def _cell(value: float | None, scale: float | None) -> str:
    return "-" if value is None or scale is None else f"{value * scale:.2f}"


def _notes(report: StepReport) -> list[str]:
    numerics, bandwidth = report.numerics, report.bandwidth
    device = torch.device(numerics["device"])
    path = f"{numerics['path']} on {numerics['instruction_set']}, {numerics['threads']} threads"
    lacks = numerics["dtype"] == "bfloat16" and not has_bfloat16(device)
    noise = f"{report.noise:.1%}" if report.noise is not None else "unknown (one round)"
    return [
        f"Numeric path: {path}" + ("; this processor has no bfloat16 instructions" if lacks else ""),
        f"Floor: {report.floor * 1e3:.2f} ms = {report.paceline_bytes / 1e6:.0f} MB of weights read at "
        f"{bandwidth.best / 1e9:.1f} GB/s (read {bandwidth.read / 1e9:.1f}, copy {bandwidth.copy / 1e9:.1f}; "
        f"transformers reads {report.transformers_bytes / 1e6:.0f} MB)",
        f"Noise: transformers against itself, every other round, differs by at most {noise}",
        "Brackets: 95 % interval of the bootstrap",
    ]
