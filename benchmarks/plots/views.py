"""Kinds of results, and what shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from paceline.console import show
from plots.charts import View
from plots.decodes import view_decodes
from plots.doctors import view_doctors
from plots.figure import check_output, save
from plots.pacers import view_pacers
from plots.results import Result, guarded, origins, read_results
from plots.steps import view_steps
from plots.text import draw

VIEWS: dict[str, Callable[[Sequence[Result]], View]] = {
    "step": view_steps,
    "decode": view_decodes,
    "pacer": view_pacers,
    "doctor": view_doctors,
}


def show_files(paths: Sequence[Path], out: Path | None = None) -> None:
    """Print what results have to show, side by side if there are several, and draw it into `out`.

    Raises:
        ConfigError: files that are no results of one kind, or an `out` that is no PNG or SVG or cannot be written.
    """
    if out is not None:
        check_output(out)
    results = read_results(paths, list(VIEWS))
    table = guarded(results, origins)
    view = guarded(results, VIEWS[results[0].kind])
    show(table)
    for figures in view.tables:
        show(figures)
    for chart in view.charts:
        draw(chart)
    if out is not None:
        save(view.charts, out)
