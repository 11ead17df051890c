"""`paceline drafters` and `paceline models`: what there is, and what load finds out about a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paceline.bundled import DEFAULT_TARGET, bundled_names, bundled_path
from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DTYPE

if TYPE_CHECKING:
    from paceline.drafters import BaseDrafter
    from paceline.formats.contents import StoredKind


def drafters() -> None:
    """List the drafters, those of installed packages too, and their options with defaults and bounds."""
    from paceline.drafters import available
    from paceline.drafters.base import package_of

    console = Console(highlight=False)
    for name, cls in available().items():
        package = package_of(name)
        origin = f" [dim](from {escape(package)})[/]" if package else ""
        summary = (cls.__doc__ or "").strip().splitlines() or [""]
        console.print(f"[bold]{name}[/]  {escape(summary[0])}{origin}")
        console.print(_options(cls))


def _options(cls: type[BaseDrafter]) -> Table:
    """Name, default, what is allowed, and what it does, of each option of a drafter."""
    from paceline.drafters._options import kind_of, limits
    from paceline.drafters.base import options_of

    table = Table(show_header=False, box=None, pad_edge=False)
    for width in (16, 7, 12, None):  # so that the tables of all drafters line up
        table.add_column(min_width=width)
    for option in options_of(cls):
        allowed = limits(option) or kind_of(option)
        table.add_row(f"  {option.name}", str(option.default), allowed, escape(option.metadata["help"]))
    return table


def models(
    model: str = typer.Argument(None, help="Load this model and print the verdict on it."),
    dtype: str = DTYPE,
    device: str = DEVICE,
    explain: bool = typer.Option(False, "--explain", help="Say what to expect of it before weights are downloaded."),
) -> None:
    """List the bundled models, or say how exactly and at what cost MODEL can be decoded."""
    if explain:
        _explain(model, dtype, device)
        return
    from paceline.native.library import status
    from paceline.pacing import measure

    console = Console(highlight=False)
    if model is None:
        for name in bundled_names():
            folder = bundled_path(name)
            size = sum(f.stat().st_size for f in folder.iterdir()) if folder else 0
            console.print(f"{name}  {size / 1e6:.1f} MB")
        console.print(status())
        return
    with load_with_progress(model, dtype=dtype, device=device) as llm:
        info = llm.info
        assert info is not None  # `load` always says
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_row("model", f"{info.name} ({info.architecture}, {info.num_parameters / 1e6:.1f} M parameters)")
        table.add_row("context", f"{info.max_length} tokens, vocabulary {info.vocab_size}")
        table.add_row(
            "memory",
            f"weights {info.weight_bytes / 1e6:.1f} MB, "
            f"pool of {info.pool_tokens} tokens {info.pool_bytes / 1e6:.1f} MB",
        )
        for kind in info.contents:
            table.add_row("weights" if kind is info.contents[0] else "", _kind(kind, info.num_parameters))
        table.add_row("kernels", status().removeprefix("native kernels: "))
        table.add_row("verdict", info.verdict)
        seconds = {rows: cost.at(0) for rows, cost in measure(llm.target).items()}
        table.add_row("floor", _floor(info.weight_bytes))
        table.add_row("forwards", ", ".join(f"{rows} rows {1e3 * s:.1f} ms" for rows, s in seconds.items()))
        console.print(table)


def _explain(model: str | None, dtype: str, device: str) -> None:
    """What the configuration alone says of a model."""
    from paceline.model.foresight import foresee
    from paceline.model.loading import parse_device, parse_dtype
    from paceline.model.numerics import free_memory

    where = parse_device(device)
    seen = foresee(os.path.expanduser(model or DEFAULT_TARGET), parse_dtype(dtype), where)
    free = free_memory(where)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("model", escape(f"{seen.name} ({seen.architecture}, {seen.num_parameters / 1e6:.1f} M parameters)"))
    if seen.parts is not None:
        table.add_row("context", f"{seen.parts.max_length} tokens, vocabulary {seen.parts.vocab_size}")
    fits = "" if seen.weight_bytes < free else f": more than the {free / 1e9:.1f} GB that are free"
    size = f"{seen.weight_bytes / 1e6:.1f} MB in" if seen.weight_bytes else "quantised, in files that are not here:"
    table.add_row("weights", f"{size} {seen.dtype}{fits}")
    if seen.parts is not None:
        table.add_row("cache", f"{seen.cache_bytes / 1e3:.1f} MB for 1,000 tokens")
        if seen.state_bytes:
            table.add_row("states", f"{seen.state_bytes / 1e6:.1f} MB a sequence")
    table.add_row("verdict", escape("; ".join(filter(None, (seen.verdict, seen.note)))))
    if seen.read_bytes and not seen.refusal:
        table.add_row("speed", _fastest(seen.read_bytes, where.type))
    Console(highlight=False).print(table)


def _fastest(num_bytes: int, device: str) -> str:
    """What plain decoding can come to here: no step of one row is shorter than reading its weights."""
    from paceline.model.bandwidth import measure_bandwidth

    best = measure_bandwidth(device).best
    return (
        f"plain decoding at most {best / num_bytes:.3g} tokens/s: a token reads {num_bytes / 1e6:.1f} MB of weights, "
        f"and this machine moves {best / 1e9:.1f} GB/s"
    )


def _kind(kind: StoredKind, total: int) -> str:
    """How some weights are stored, what they are multiplied as, and whether these are the same values."""
    as_what = "" if kind.name == kind.becomes else f" as {kind.becomes}"
    exact = "the same values" if kind.is_exact else "the nearest values"
    return (
        f"{kind.name}{as_what}: {100 * kind.weights / total:.1f} % in {kind.tensors} tensors, "
        f"{kind.bits_per_weight:.2f} bits a weight, {exact}"
    )


def _floor(num_bytes: int) -> str:
    """What reading all weights once takes on this machine: no step of one row can be shorter."""
    from paceline.model.bandwidth import measure_bandwidth

    best = measure_bandwidth("cpu").best
    return f"{1e3 * num_bytes / best:.1f} ms to read the weights once at {best / 1e9:.1f} GB/s"
