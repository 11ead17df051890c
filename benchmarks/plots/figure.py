"""Charts by matplotlib, one below the other in a PNG or SVG: medians as dots, intervals as whiskers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paceline.errors import ConfigError
from plots.charts import Bars, Chart, Lines, Mark, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMS = (".png", ".svg")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito: told apart by all eyes
_SIGNS = "o^sDPX"
GREY = "#6b6b6b"
_STYLE: Any = {  # typed key by key in some releases of matplotlib
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "paceline",
}
_WIDTH = 8.5  # inches
_LINES_HEIGHT = 3.6
_PER_BAR, _AROUND_BARS = 0.24, 1.3
_PER_ENTRY = 0.22  # of the legend
_SHORT = 18  # characters of a name that leaves room for two others beside it
_LONGEST, _LONGEST_LABEL = 80, 40  # characters of a title, and of what stands beside the figures
_LEAST = "least of the prompts"


def check_output(path: Path) -> None:
    """Refuse a file that cannot become a figure, before anything is drawn.

    Raises:
        ConfigError: its name ends otherwise than in .png or .svg, its folder is not there, or matplotlib is missing.
    """
    if path.suffix.lower() not in _FORMS:
        raise ConfigError(f"out is {str(path)!r}; allowed: a name that ends in {' or '.join(_FORMS)}")
    if not path.parent.is_dir():
        raise ConfigError(
            f"out is {str(path)!r}, and there is no folder {str(path.parent)!r}; allowed: one that exists"
        )


def save(charts: Sequence[Chart], path: Path) -> None:
    """Draw charts into a file.

    Raises:
        ConfigError: the file cannot be written, or matplotlib is not installed.
    """
    with panels([_height(chart) for chart in charts], path) as found:
        for panel, chart in zip(found, charts, strict=True):
            if isinstance(chart, Bars):
                _bars(panel, chart)
            else:
                _lines(panel, chart)


@contextmanager
def panels(heights: Sequence[float], path: Path, share_x: bool = False) -> Iterator[Sequence[Axes]]:
    """Axes of these heights (inches), one below the other, to draw on; written to a file at the end.

    Raises:
        ConfigError: as `save`.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"a picture needs matplotlib ({error}); pip install 'paceline[bench]' brings it") from error

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it, as the reader sees
        figure = Figure((_WIDTH, sum(heights)), layout="constrained")
        yield figure.subplots(len(heights), 1, sharex=share_x, squeeze=False, height_ratios=heights)[:, 0]
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise ConfigError(f"cannot write {str(path)!r} ({error}); allowed: a file that can be written") from error


def _height(chart: Chart) -> float:
    legend = _PER_ENTRY * math.ceil((len(chart.series) + 2) / _columns(chart))
    if isinstance(chart, Lines):
        return _LINES_HEIGHT + legend
    return _PER_BAR * len(chart.labels) * max(len(chart.series), 1) + _AROUND_BARS + legend


def _plain(text: str, longest: int = _LONGEST) -> str:
    """Text that leaves room for the figures, and that matplotlib does not take for mathematics."""
    return (text if len(text) <= longest else f"{text[: longest - 1]}…").replace("$", r"\$")


def _bars(panel: Axes, chart: Bars) -> None:
    """A line for each label; the series of a label stand close to each other."""
    count = max(len(chart.series), 1)
    for position, one in enumerate(chart.series):
        places = [index + (position - (count - 1) / 2) * 0.7 / count for index in range(len(chart.labels))]
        marked = [(place, mark) for place, mark in zip(places, one.marks, strict=True) if mark is not None]
        _whiskers(panel, marked, one)
    panel.set_yticks(range(len(chart.labels)), [_plain(label, _LONGEST_LABEL) for label in chart.labels])
    panel.set_ylim(len(chart.labels) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x")
    if chart.band:
        panel.axvline(chart.band.level, color=GREY, linewidth=1, zorder=1)
        _shade(panel.axvspan, chart)
    panel.set_xlim(left=0)
    panel.set_xlabel(chart.unit)
    _finish(panel, chart)


def _whiskers(panel: Axes, marked: Sequence[tuple[float, Mark]], one: Series) -> None:
    sign, colour = _look(one)
    places, values = [place for place, _ in marked], [mark.value for _, mark in marked]
    panel.errorbar(
        values, places, xerr=_errors(marked), fmt=sign, color=colour, capsize=2.5, markersize=5, label=_plain(one.name)
    )
    least = [(mark.least, place) for place, mark in marked if mark.least is not None]
    if least:
        panel.plot(*zip(*least, strict=True), "|", color=colour, markersize=8, alpha=0.7, label=_LEAST)


def _lines(panel: Axes, chart: Lines) -> None:
    for one in chart.series:
        _line(panel, chart.places, one)
    panel.set_xscale("log", base=2)
    panel.set_xticks(chart.places, [f"{place:g}" for place in chart.places], minor=False)
    panel.minorticks_off()
    panel.grid(axis="y")
    if chart.band:
        name = "_" if chart.band.width else chart.band.name
        panel.axhline(chart.band.level, color=GREY, linewidth=1, linestyle="--", zorder=1, label=name)
        _shade(panel.axhspan, chart)
    panel.set_ylim(bottom=0)
    panel.set_xlabel(chart.axis)
    panel.set_ylabel(chart.unit)
    _finish(panel, chart)


def _line(panel: Axes, over: Sequence[float], one: Series) -> None:
    sign, colour = _look(one)
    marked = [(place, mark) for place, mark in zip(over, one.marks, strict=True) if mark is not None]
    places, values = [place for place, _ in marked], [mark.value for _, mark in marked]
    panel.errorbar(
        places,
        values,
        yerr=_errors(marked),
        fmt=f"{sign}-",
        color=colour,
        capsize=2.5,
        markersize=5,
        linewidth=1.5,
        label=_plain(one.name),
    )


def _errors(marked: Sequence[tuple[float, Mark]]) -> Any:
    """Distances (2, n) from each value down and up to the ends of its interval; none for a value without."""
    low = [mark.value - (mark.value if mark.low is None else mark.low) for _, mark in marked]
    high = [(mark.value if mark.high is None else mark.high) - mark.value for _, mark in marked]
    return [[max(v, 0.0) for v in low], [max(v, 0.0) for v in high]]


def _shade(span: Any, chart: Chart) -> None:
    band = chart.band
    if band and band.width:
        span(band.level - band.width, band.level + band.width, color=GREY, alpha=0.15, linewidth=0, label=band.name)


def _look(one: Series) -> tuple[str, str]:
    return _SIGNS[one.rank % len(_SIGNS)], COLOURS[one.rank % len(COLOURS)]


def _finish(panel: Axes, chart: Chart) -> None:
    """Title, and a legend below the axis' own name, where no figure can lie under it: series first, each once."""
    panel.set_title(_plain(chart.title))
    handles, labels = panel.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    names = [_plain(one.name) for one in chart.series]
    order = [*dict.fromkeys(names), *(label for label in found if label not in names)]
    panel.legend(
        [found[label] for label in order],
        order,
        frameon=False,
        fontsize=8.5,
        ncols=_columns(chart),
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        borderaxespad=4.5,
    )


def _columns(chart: Chart) -> int:
    """Of the legend: one where names are long."""
    return 3 if max((len(one.name) for one in chart.series), default=0) <= _SHORT else 1
