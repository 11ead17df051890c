"""The view of `bench step`: milliseconds of a forward by its rows, and Paceline's time over the others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from paceline.bench.timing import interval, ratio, resamples
from paceline.console import Table
from plots.charts import Band, Lines, Mark, Series, View
from plots.results import Result, number

_OURS, _STOCK = "Paceline", "transformers"


def view_steps(results: Sequence[Result]) -> View:
    """All results in one chart each if there is one, else engine by engine."""
    rows = sorted({_count(row) for result in results for row in result.content["rows"]})
    if not rows or rows[0] < 1:
        raise ValueError(f"the rows of the forwards are {rows}")
    tables = [_table(result) for result in results]
    return View(tables, [*_times(results, rows), *_ratios(results, rows)])


def _count(row: Mapping[str, Any]) -> int:
    return int(number(row["rows"]))


def _engines(results: Sequence[Result]) -> list[str]:
    """Who took part in any of the results."""
    others = [name for result in results for row in result.content["rows"] for name in dict(row["others"])]
    return list(dict.fromkeys([_OURS, _STOCK, *others]))


def _samples(result: Result, engine: str, count: int) -> list[float]:
    """Seconds of each round at one row count; empty where there are none."""
    rows = [row for row in result.content["rows"] if _count(row) == count]
    seconds = [number(value) for value in _seconds(rows[0], engine)] if rows else []
    if 0.0 in seconds:
        raise ValueError("a forward took no time")
    return seconds


def _seconds(row: Mapping[str, Any], engine: str) -> Sequence[Any]:
    known = {_OURS: row["paceline_seconds"], _STOCK: row["transformers_seconds"], **row["others"]}
    return known.get(engine, ())


def _model(result: Result) -> str:
    content = result.content
    return f"{content['model']}, {content['numerics']['dtype']}, context {content['context']}"


def _table(result: Result) -> Table:
    content = result.content
    engines = _engines([result])
    table = Table(f"{result.name}: {_model(result)}", ("rows", "padded to", *(f"{engine} ms" for engine in engines)))
    for row in content["rows"]:
        times = [_samples(result, engine, _count(row)) for engine in engines]
        cells = [f"{median(seconds) * 1e3:.2f}" if seconds else "-" for seconds in times]
        table.rows.append((str(_count(row)), str(row["padded_rows"] or "-"), *cells))
    noise = "unknown" if content["noise"] is None else f"{number(content['noise']):.1%}"
    table.notes.append(f"Floor: {number(content['floor_ms']):.2f} ms; noise: {noise}")
    return table


def _times(results: Sequence[Result], rows: Sequence[int]) -> list[Lines]:
    if len(results) == 1:
        (result,) = results
        series = [Series(name, _time_marks(result, name, rows), i) for i, name in enumerate(_engines(results))]
        floor = Band(number(result.content["floor_ms"]), 0.0, "floor")
        return [_lines(_model(result), "ms", rows, series, floor)]
    return [
        _lines(f"{name}: {', '.join(dict.fromkeys(map(_model, results)))}", "ms", rows, series)
        for name in _engines(results)
        if (series := _some([Series(r.name, _time_marks(r, name, rows), i) for i, r in enumerate(results)]))
    ]


def _ratios(results: Sequence[Result], rows: Sequence[int]) -> list[Lines]:
    noise = max((number(r.content["noise"]) for r in results if r.content["noise"] is not None), default=0.0)
    band = Band(1.0, noise, "equal, ± noise")
    others = [(rank, name) for rank, name in enumerate(_engines(results)) if name != _OURS]
    if len(results) == 1:
        series = [Series(name, _ratio_marks(results[0], name, rows), rank) for rank, name in others]
        return [_lines("Paceline's time over that of others (below 1: faster)", "times", rows, series, band)]
    return [
        _lines(f"Paceline's time over that of {name} (below 1: faster)", "times", rows, series, band)
        for _, name in others
        if (series := _some([Series(r.name, _ratio_marks(r, name, rows), i) for i, r in enumerate(results)]))
    ]


def _lines(title: str, unit: str, rows: Sequence[int], series: Sequence[Series], band: Band | None = None) -> Lines:
    return Lines(title, unit, "rows of the forward", rows, _some(series), band)


def _some(series: Sequence[Series]) -> list[Series]:
    return [one for one in series if any(mark is not None for mark in one.marks)]


def _time_marks(result: Result, engine: str, rows: Sequence[int]) -> list[Mark | None]:
    return [_time_mark(_samples(result, engine, count)) for count in rows]


def _time_mark(seconds: Sequence[float]) -> Mark | None:
    """The median in milliseconds, with the interval of the bootstrap over rounds."""
    if not seconds:
        return None
    times = np.array(seconds) * 1e3
    found = interval(np.median(times[resamples(len(times))], 1))
    return Mark(float(np.median(times)), found.low, found.high)


def _ratio_marks(result: Result, engine: str, rows: Sequence[int]) -> list[Mark | None]:
    marks: list[Mark | None] = []
    for count in rows:
        ours, theirs = _samples(result, _OURS, count), _samples(result, engine, count)
        found = ratio(ours, theirs) if ours and theirs else None
        marks.append(Mark(found.value, found.low, found.high) if found else None)
    return marks
