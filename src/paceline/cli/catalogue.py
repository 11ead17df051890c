"""`paceline drafters` and `paceline models`: what there is, and what load finds out about a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from paceline.bundled import bundled_names, bundled_path
from paceline.cli.loading import load_with_progress
from paceline.cli.options import DEVICE, DTYPE

if TYPE_CHECKING:
    from paceline.drafters import BaseDrafter


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
) -> None:
    """List the bundled models, or say how exactly and at what cost MODEL can be decoded."""
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
        table.add_row("kernels", status().removeprefix("native kernels: "))
        table.add_row("verdict", info.verdict)
        seconds = {rows: cost.at(0) for rows, cost in measure(llm.target).items()}
        table.add_row("forwards", ", ".join(f"{rows} rows {1e3 * s:.1f} ms" for rows, s in seconds.items()))
        console.print(table)
