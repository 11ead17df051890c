"""Forwards of few rows behind a long context whose keys and values are drawn at random: reading one would take minutes.

usage: python benchmarks/long_step.py [--shape 134m] [--dtype bfloat16] [--context 32000] [--rows 1,2,4,8]
       [--repeats 7] [--json FILE]

What `paceline bench step --context` times, without its reading. What a forward costs does not depend on the values.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from goal import Goal, print_goals

from paceline.bench.memory import bytes_read, token_bytes
from paceline.bench.models import random_model
from paceline.bench.shapes import parse_counts
from paceline.console import Table, progress, show, write_json
from paceline.model.bandwidth import measure_bandwidth
from paceline.model.decoder import Decoder
from paceline.model.loading import load_target, parse_dtype
from paceline.model.rows import TreeWork
from paceline.provenance import provenance

MOST = 1.5  # times one row, for eight
CPU = torch.device("cpu")

app = typer.Typer(add_completion=False)


def timed_rows(decoder: Decoder, context: int, counts: tuple[int, ...], repeats: int) -> dict[int, list[float]]:
    """Seconds of each turn by row count; a chain of rows stands behind `context` random positions."""
    for layer in decoder.pool.layers:
        for part in (layer.keys, layer.values):
            part.view(-1)[: 1 << 20].normal_()
            _repeat(part.view(-1), 1 << 20)
    sequence = decoder.pool.reserve(context + max(counts))
    assert sequence is not None, "the cache was made for it"
    sequence.length = context
    work = {count: [TreeWork(sequence, [5] * count, range(-1, count - 1))] for count in counts}
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    with progress("forwards", repeats) as advance:
        for _ in range(repeats + 1):  # the first is not counted
            for count in counts:
                started = time.perf_counter()
                decoder.forward(work[count])
                seconds[count].append(time.perf_counter() - started)
            advance()
    return {count: taken[1:] for count, taken in seconds.items()}


def _repeat(flat: torch.Tensor, size: int) -> None:
    """Fill a tensor with its first `size` values again and again."""
    for start in range(size, flat.numel(), size):
        part = flat[start : start + size]
        part.copy_(flat[: len(part)])


@app.command()
def long_step(
    shape: str = typer.Option("134m"),
    dtype: str = typer.Option("bfloat16"),
    context: int = typer.Option(32_000, min=128),
    rows: str = typer.Option("1,2,4,8"),
    repeats: int = typer.Option(7, min=1),
    json: Path = typer.Option(None, "--json"),
) -> None:
    """Time forwards by row count, beside the floor: reading the weights and the context once."""
    counts = parse_counts("rows", rows)
    target = load_target(random_model(shape, parse_dtype(dtype), CPU), cache_tokens=context + 1024)[0]
    bandwidth = measure_bandwidth(CPU)
    seconds = timed_rows(target.decoder, context, counts, repeats)
    read = bytes_read(target.decoder.model) + context * token_bytes(target.decoder.pool)
    one = median(seconds[counts[0]])
    found: dict[str, Any] = {"floor_ms": 1e3 * read / bandwidth.best, "context": context, "shape": shape}
    table = Table(f"{shape}, {dtype}, behind {context:,} tokens; floor {found['floor_ms']:.0f} ms", ("rows", "ms", "x"))
    table.rows += [(str(n), f"{1e3 * median(s):.1f}", f"{median(s) / one:.2f}") for n, s in seconds.items()]
    show(table)
    if {1, 8} <= seconds.keys():
        times = median(seconds[8]) / one
        print_goals([Goal(f"8 rows at most {MOST} x 1 row", f"{times:.2f}", times <= MOST)])
    write_json(json, found | {"seconds": seconds, "provenance": provenance(CPU)})


if __name__ == "__main__":
    app()
