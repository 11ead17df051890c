"""The view of `bench doctor`: predicted intervals by task, and what was measured after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.console import Table
from plots.charts import Bars, Mark, Series, View
from plots.results import Result, number

_DRAWN = "speed-up"


def view_doctors(results: Sequence[Result]) -> View:
    """For each result a table of all figures, and a chart of its speed-ups."""
    return View([_table(result) for result in results], [_chart(result) for result in results])


def _figures(result: Result) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Figures by task and name."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for figure in result.content["figures"]:
        found.setdefault(str(figure["task"]), {})[str(figure["name"])] = figure
    if not found:
        raise ValueError("there are no figures")
    return found


def _table(result: Result) -> Table:
    by_task = _figures(result)
    names = list(dict.fromkeys(name for figures in by_task.values() for name in figures))
    table = Table(f"{result.name}: predicted, and measured after it", ("task", *names))
    for task, figures in by_task.items():
        table.rows.append((task, *(_cell(figures[name]) if name in figures else "–" for name in names)))
    held = [bool(figure["holds"]) for figures in by_task.values() for figure in figures.values()]
    table.notes.append(f"{sum(held)} of {len(held)} intervals hold; a mark: the measured figure is outside")
    if result.content["discarded"]:
        table.notes.append(f"{len(result.content['discarded'])} figures were left out: the machine had changed")
    return table


def _cell(figure: Mapping[str, Any]) -> str:
    predicted, mark = _predicted(figure), "" if figure["holds"] else " !"
    interval = f"{predicted.value:.2f} ({predicted.low:.2f} to {predicted.high:.2f})"
    return f"{interval} · {number(figure['measured']):.2f}{mark}"


def _chart(result: Result) -> Bars:
    drawn = {task: figures[_DRAWN] for task, figures in _figures(result).items()}
    series = [
        Series("predicted", [_predicted(figure) for figure in drawn.values()], 0),
        Series("measured", [Mark(number(figure["measured"])) for figure in drawn.values()], 1),
    ]
    return Bars(f"{result.name}: speed-up of decoding over plain decoding", "times", list(drawn), series)


def _predicted(figure: Mapping[str, Any]) -> Mark:
    return Mark(*(number(figure["predicted"][key]) for key in ("value", "low", "high")))
