"""Results of `paceline bench ... --json FILE` as tables and plots, in the terminal and as PNG or SVG.

usage: python benchmarks/plot.py FILE... [--out plot.png]

Several files of one kind stand side by side. A picture needs matplotlib: pip install 'paceline[bench]'.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from plots.views import show_files

from paceline.errors import PacelineError

app = typer.Typer(add_completion=False)


@app.command()
def plot(
    files: list[Path] = typer.Argument(..., help="Results of one kind.", show_default=False),
    out: Path = typer.Option(None, help="Draw the plots into this PNG or SVG.", show_default="in the terminal alone"),
) -> None:
    """Show results that --json wrote, as tables and plots; several of one kind side by side."""
    show_files(files, out)


if __name__ == "__main__":
    try:
        app()
    except PacelineError as error:
        sys.exit(f"plot: {error}")
