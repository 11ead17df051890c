"""A step measurement as a table with notes."""

from __future__ import annotations

from statistics import median

import torch

from paceline.bench.step import StepPlan, StepReport, StepRow
from paceline.bench.timing import self_ratio
from paceline.console import Table
from paceline.provenance import has_bfloat16


def step_table(report: StepReport, plan: StepPlan) -> Table:
    """The report as a table; others have columns if they competed."""
    rounds = len(report.rows[0].transformers)
    title = f"{report.name}, {report.numerics['dtype']}, context {plan.context}: one forward, median of {rounds}"
    rows = [_cells(row, report.rows[0]) for row in report.rows]
    table = Table(title, [column for column, _ in rows[0]])
    table.rows += [[cell for _, cell in row] for row in rows]
    table.notes += _notes(report)
    return table


def _cells(row: StepRow, first: StepRow) -> list[tuple[str, str]]:
    """Columns and cells of one row count; `first` is the lowest."""
    theirs = {"transformers": (row.transformers, first.transformers)}
    theirs |= {name: (seconds, first.others[name]) for name, seconds in row.others.items()}
    times = [cell for name, both in theirs.items() for cell in _times(name, *both, first.rows)]
    return [
        ("rows", str(row.rows)),
        ("padded to", str(row.padded or "does not fit")),
        *_times("Paceline", row.paceline, first.paceline, first.rows),
        *times,
        *((f"Paceline / {name}", str(row.against(seconds) or "-")) for name, (seconds, _) in theirs.items()),
        ("transformers / itself", _cell(self_ratio(row.transformers))),
    ]


def _times(name: str, seconds: list[float], first: list[float], first_rows: int) -> list[tuple[str, str]]:
    """The median in milliseconds, and in multiples of one row's if that was measured."""
    time = median(seconds) if seconds else None
    multiple = time / median(first) if time is not None and first and first_rows == 1 else None
    return [(f"{name} ms", _cell(time and time * 1e3)), ("x 1 row", _cell(multiple))]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _notes(report: StepReport) -> list[str]:
    numerics, bandwidth = report.numerics, report.bandwidth
    device = torch.device(numerics["device"])
    path = f"{numerics['path']} on {numerics['instruction_set']}, {numerics['threads']} threads"
    lacks = numerics["dtype"] == "bfloat16" and not has_bfloat16(device)
    noise = f"{report.noise:.1%}" if report.noise is not None else "unknown (one round)"
    return [
        f"Numeric path: {path}" + ("; this processor has no bfloat16 instructions" if lacks else ""),
        f"Floor: {report.floor * 1e3:.2f} ms = {report.paceline_bytes / 1e6:.0f} MB of weights and "
        f"{report.cache_bytes / 1e6:.0f} MB of keys and values read at {bandwidth.best / 1e9:.1f} GB/s "
        f"(read {bandwidth.read / 1e9:.1f}, copy {bandwidth.copy / 1e9:.1f}; "
        f"transformers reads {report.transformers_bytes / 1e6:.0f} MB)",
        f"Noise: transformers against itself, every other round, differs by at most {noise}",
        "Brackets: 95 % interval of the bootstrap",
    ]
