"""A step measurement as a table, its notes, and the lines to reach."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from paceline.bench.reach import Reach
from paceline.bench.step import StepPlan, StepReport, StepRow
from paceline.bench.timing import ratio, self_ratio
from paceline.console import Table
from paceline.provenance import has_bfloat16

# dtype -> rows and the most that they may cost, in times one row
_COSTS: dict[str, tuple[tuple[int, float], ...]] = {"bfloat16": ((8, 1.1), (16, 1.3)), "float32": ((16, 1.2),)}
_OF_BANDWIDTH = 0.85
_ONE_ROW = 1.25  # times llama.cpp's one row


def step_reach(report: StepReport, shape: str | None) -> list[Reach]:
    """The lines that the 134m shape is to reach; none for other models."""
    one, dtype = report.row(1), report.numerics["dtype"]
    if shape != "134m" or one is None:
        return []
    lines = [line for rows, limit in _COSTS.get(dtype, ()) for line in _cost(report, one, rows, limit)]
    against = ratio(one.paceline, one.transformers)
    lines.append(Reach("1 row is no slower than transformers' 1 row", f"{against} x its time", against.value <= 1.0))
    return lines + _linears(report) + (_beside_llamacpp(report, one) if dtype == "bfloat16" else [])


def _linears(report: StepReport) -> list[Reach]:
    if not report.linears:
        return []
    shares = report.linears
    figure = ", ".join(f"{share:.0%} at {rows}" for rows, share in shares.items())
    text = f"linears alone read at least {_OF_BANDWIDTH:.0%} of the bandwidth at {min(shares)} to {max(shares)} rows"
    return [Reach(text, figure, min(shares.values()) >= _OF_BANDWIDTH)]


def _cost(report: StepReport, one: StepRow, rows: int, limit: float) -> list[Reach]:
    many = report.row(rows)
    if many is None:
        return []
    cost = ratio(many.paceline, one.paceline)
    return [Reach(f"{rows} rows cost at most {limit} x 1 row", f"{cost} x", cost.value <= limit)]


def _beside_llamacpp(report: StepReport, one: StepRow) -> list[Reach]:
    lines = []
    if (first := one.against_llamacpp) is not None:
        text = f"1 row costs at most {_ONE_ROW} x llama.cpp's 1 row"
        lines.append(Reach(text, f"{first} x", first.value <= _ONE_ROW))
    many = [(against, row.rows) for row in report.rows if row.rows > 1 and (against := row.against_llamacpp)]
    if many:
        worst, rows = max(many, key=lambda pair: pair[0].value)
        figure = f"at worst {worst} x its time, at {rows} rows"
        lines.append(Reach("from 2 rows on faster than llama.cpp", figure, worst.value < 1.0))
    return lines


def step_table(report: StepReport, plan: StepPlan) -> Table:
    """The report as a table; llama.cpp's columns are there if it competed."""
    rounds = len(report.rows[0].transformers)
    title = f"{report.name}, {report.numerics['dtype']}, context {plan.context}: one forward, median of {rounds}"
    rows = [_cells(row, report.rows[0]) for row in report.rows]
    table = Table(title, [column for column, _ in rows[0]])
    table.rows += [[cell for _, cell in row] for row in rows]
    table.notes += _notes(report)
    return table


def _cells(row: StepRow, first: StepRow) -> list[tuple[str, str]]:
    """Columns and cells of one row count; `first` is the lowest."""
    peer = first.llamacpp
    return [
        ("rows", str(row.rows)),
        ("padded to", str(row.padded or "does not fit")),
        *_times("Paceline", row.paceline, first.paceline, first.rows),
        *_times("transformers", row.transformers, first.transformers, first.rows),
        *(_times("llama.cpp", row.llamacpp, peer, first.rows) if peer else []),
        ("Paceline / transformers", str(row.against_transformers or "-")),
        *([("Paceline / llama.cpp", str(row.against_llamacpp or "-"))] if peer else []),
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
        f"Floor: {report.floor * 1e3:.2f} ms = {report.paceline_bytes / 1e6:.0f} MB of weights read at "
        f"{bandwidth.best / 1e9:.1f} GB/s (read {bandwidth.read / 1e9:.1f}, copy {bandwidth.copy / 1e9:.1f}; "
        f"transformers reads {report.transformers_bytes / 1e6:.0f} MB)",
        f"Noise: transformers against itself, every other round, differs by at most {noise}",
        "Brackets: 95 % interval of the bootstrap",
        *_about_llamacpp(report.llamacpp),
    ]


def _about_llamacpp(about: dict[str, Any]) -> list[str]:
    if not about:
        return []
    if "absent" in about:
        return [f"llama.cpp does not compete: {about['absent']}"]
    settings = f"llama-cpp-python {about['version']}, {about['threads']} threads, {about['cache']} cache"
    error = f"logits within {about['largest_error']:.1e} (relative) of transformers'"
    threads = "" if about["has_openmp"] else "built without OpenMP, which can slow its forwards of few rows; "
    return [f"llama.cpp: {settings}, {error}; {threads}{about['system']}"]
