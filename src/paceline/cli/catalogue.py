"""`paceline drafters` and `paceline models`: what there is, and what load finds out about a model."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from paceline.bundled import bundled_names, bundled_path
from paceline.cli.loading import load_with_progress


def drafters() -> None:
    """List the drafters and their options."""
    from paceline.drafters import available
    from paceline.drafters.base import options_of

    table = Table("drafter", "option", "default", "what it does", box=None, pad_edge=False)
    for name, cls in available().items():
        table.add_row(f"[bold]{name}[/]", "", "", (cls.__doc__ or "").splitlines()[0])
        for option in options_of(cls):
            table.add_row("", option.name, str(option.default), option.metadata["help"])
    Console().print(table)


def models(
    model: str = typer.Argument(None, help="Load this model and print the verdict on it."),
    dtype: str = typer.Option("auto", help="auto, float32, bfloat16 or float16."),
    device: str = typer.Option("auto", help="auto, cpu, cuda or cuda:N."),
) -> None:
    """List the bundled models, or say how exactly and at what cost MODEL can be decoded."""
    from paceline.native.library import status

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
        console.print(table)
