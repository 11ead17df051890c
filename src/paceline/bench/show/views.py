"""Kinds of results, and what shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from paceline.bench.show.charts import View
from paceline.bench.show.decodes import view_decodes
from paceline.bench.show.doctors import view_doctors
from paceline.bench.show.figure import check_output, save
from paceline.bench.show.pacers import view_pacers
from paceline.bench.show.results import Result, guarded, origins, read_results
from paceline.bench.show.steps import view_steps
from paceline.bench.show.text import draw
from paceline.console import show

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
