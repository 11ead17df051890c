"""The view of `bench pacer`: speed-ups over plain decoding by task, of the pacer and of the best fixed contender."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.console import Table
from plots.charts import Band, Bars, Mark, Series, View
from plots.results import Result, number

_COLUMNS = ("task", "pacer x plain", "without prefill", "best fixed", "x plain", "tokens a step")


def view_pacers(results: Sequence[Result]) -> View:
    """The pacer and the best fixed contender in one chart if there is one result, else the pacers of all."""
    tasks = list(dict.fromkeys(task for result in results for task in _tasks(result)))
    if not tasks:
        raise ValueError("there are no tasks")
    return View([_table(result) for result in results], [_chart(results, tasks)])


def _tasks(result: Result) -> Mapping[str, Any]:
    found = result.content["summary"]["tasks"]
    if not isinstance(found, dict):
        raise TypeError("summary.tasks is no mapping")
    return found


def _model(result: Result) -> str:
    return f"{result.content['model']}, {result.content['dtype']}"


def _best(summary: Mapping[str, Any]) -> tuple[str, float]:
    """The best fixed contender of a task, plain decoding being one, and its speed-up."""
    speed_ups = {str(name): number(value) for name, value in summary["fixed"].items()}
    name = max(speed_ups, key=lambda name: speed_ups[name])
    return name, speed_ups[name]


def _table(result: Result) -> Table:
    table = Table(f"{result.name}: {_model(result)}", _COLUMNS)
    for task, summary in _tasks(result).items():
        pacer, (best, speed_up) = summary["pacer"], _best(summary)
        interval = " to ".join(f"{number(pacer[key]):.2f}" for key in ("low", "high"))
        figures = (number(summary["decoding"]), speed_up, number(summary["mean_acceptance_length"]))
        without, fixed, tokens = (f"{figure:.2f}" for figure in figures)
        table.rows.append((task, f"{number(pacer['value']):.2f} ({interval})", without, best, fixed, tokens))
    mix = result.content["summary"]["mix"]
    table.notes.append(f"All tasks together: {number(mix['value']):.2f} x plain")
    if not result.content["same_bytes"]:
        table.notes.append("Warning: outputs were not the bytes of plain decoding")
    return table


def _chart(results: Sequence[Result], tasks: Sequence[str]) -> Bars:
    noise = max(abs(number(summary["noise"]) - 1.0) for result in results for summary in _tasks(result).values())
    band = Band(1.0, noise, "plain, ± noise")
    if len(results) > 1:
        series = [Series(result.name, _marks(result, tasks, _paced), rank) for rank, result in enumerate(results)]
        return Bars("The pacer over plain decoding, whole calls", "times", tasks, series, band)
    (result,) = results
    kinds = (("pacer", _paced), ("pacer, without prefill", _decoding), ("best fixed contender", _fixed))
    series = [Series(name, _marks(result, tasks, mark), rank) for rank, (name, mark) in enumerate(kinds)]
    return Bars(f"Speed-up over plain decoding: {_model(result)}", "times", tasks, series, band)


def _marks(result: Result, tasks: Sequence[str], mark: Any) -> list[Mark | None]:
    known = _tasks(result)
    return [mark(known[task]) if task in known else None for task in tasks]


def _paced(summary: Mapping[str, Any]) -> Mark:
    value, low, high = (number(summary["pacer"][key]) for key in ("value", "low", "high"))
    return Mark(value, low, high)


def _decoding(summary: Mapping[str, Any]) -> Mark:
    return Mark(number(summary["decoding"]))


def _fixed(summary: Mapping[str, Any]) -> Mark:
    return Mark(_best(summary)[1])
