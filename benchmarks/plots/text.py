"""Charts in a terminal: a bar per figure, or a grid of characters with a line per series."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from plots.charts import Bars, Chart, Lines, Mark, Series

_COLOURS = ("cyan", "yellow", "magenta", "green", "blue", "red")
_SIGNS = "●▲■◆✚✖"
_WIDTH, _HEIGHT = 56, 14  # characters of a bar's longest, and of a grid
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def draw(chart: Chart) -> None:
    """Print a chart; what a file's names hold is never taken for markup."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    for line in _bars(chart) if isinstance(chart, Bars) else _lines(chart):
        console.print(line, overflow="ellipsis", no_wrap=True)
    console.print()


def _bars(chart: Bars) -> list[Text]:
    lines = [Text(chart.title, "bold")]
    width = max((len(label) for label in chart.labels), default=0)
    top = max((m.reach[1] for one in chart.series for m in one.marks if m), default=0.0) or 1.0
    level = round(chart.band.level / top * _WIDTH) if chart.band else -1
    for index, label in enumerate(chart.labels):
        for one in chart.series:
            mark = one.marks[index]
            if mark is not None:
                sign, colour = _look(one)
                name = Text((label if one is chart.series[0] else "").ljust(width) + " ")
                lines.append(name.append(f"{sign} ", colour) + _bar(mark, top, level, colour))
    lines.append(Text(" " * width + f"   {chart.unit}" + (f"; ┊ {_band(chart)}" if chart.band else "")))
    return lines + _legend(chart)


def _bar(mark: Mark, top: float, level: int, colour: str) -> Text:
    """A bar to an eighth of a character, the level to compare with where it is not covered, and the figures."""
    eighths = max(round(mark.value / top * _WIDTH * 8), 0)
    bar = ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip().ljust(_WIDTH + 1)
    cells = [("┊", "dim") if i == level and c == " " else (c, colour) for i, c in enumerate(bar)]
    figures = f" {mark.value:.2f}"
    if mark.low is not None and mark.high is not None:
        figures += f" ({mark.low:.2f} to {mark.high:.2f})"
    if mark.least is not None:
        figures += f", least {mark.least:.2f}"
    return Text.assemble(*cells, figures)


def _lines(chart: Lines) -> list[Text]:
    marks = [mark for one in chart.series for mark in one.marks if mark is not None]
    top = max([mark.value for mark in marks] + ([chart.band.level] if chart.band else [])) or 1.0
    grid = [[(" ", "")] * _WIDTH for _ in range(_HEIGHT)]
    columns = _columns(chart.places)
    if chart.band:
        grid[_row(chart.band.level, top)] = [("┄", "dim")] * _WIDTH
    for one in chart.series:
        points = [(x, mark.value) for x, mark in zip(columns, one.marks, strict=True) if mark is not None]
        _trace(grid, points, top, _look(one)[1])
        for x, value in points:
            grid[_row(value, top)][x] = _look(one)
    scale = [f"{top:9.2f} ┤", *[" " * 10 + "│"] * (_HEIGHT - 2), f"{0:9.2f} ┤"]
    body = [Text.assemble(edge, *cells) for edge, cells in zip(scale, grid, strict=True)]
    foot = [Text(" " * 11 + _ticks(columns, chart.places)), Text(" " * 11 + f"{chart.axis}; up: {chart.unit}")]
    level = [Text(f"  ┄ {_band(chart)}")] if chart.band else []
    return [Text(chart.title, "bold"), *body, *foot, *_legend(chart), *level]


def _columns(places: Sequence[float]) -> list[int]:
    """Where places stand, by the logarithm."""
    logs = [math.log2(place) for place in places]
    span = (logs[-1] - logs[0]) or 1.0
    return [round((value - logs[0]) / span * (_WIDTH - 1)) for value in logs]


def _row(value: float, top: float) -> int:
    return min(max(_HEIGHT - 1 - round(value / top * (_HEIGHT - 1)), 0), _HEIGHT - 1)


def _trace(grid: list[list[tuple[str, str]]], points: Sequence[tuple[int, float]], top: float, colour: str) -> None:
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        for x in range(x0 + 1, x1):
            grid[_row(y0 + (y1 - y0) * (x - x0) / (x1 - x0), top)][x] = ("·", colour)


def _ticks(columns: Sequence[int], places: Sequence[float]) -> str:
    line = ""
    for column, place in zip(columns, places, strict=True):
        if not line or column > len(line):
            line = line.ljust(column) + f"{place:g}"
    return line


def _band(chart: Chart) -> str:
    assert chart.band is not None
    return f"{chart.band.name}: {chart.band.level:.2f}" + (f" ± {chart.band.width:.2f}" if chart.band.width else "")


def _legend(chart: Chart) -> list[Text]:
    return [Text.assemble("  ", _look(one), f" {one.name}") for one in chart.series]


def _look(one: Series) -> tuple[str, str]:
    return _SIGNS[one.rank % len(_SIGNS)], _COLOURS[one.rank % len(_COLOURS)]
