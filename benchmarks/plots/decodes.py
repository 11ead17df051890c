"""The view of `bench decode`: speed-ups over plain decoding by contender and by category, and what was accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paceline.bench.names import PLAIN, PLAIN_AGAIN
from paceline.console import Table
from plots.charts import Band, Bars, Mark, Series, View
from plots.results import Result, number

_COLUMNS = ("contender", "tokens/s", "x plain", "mean", "least", "τ", "drafts accepted", "α", "as plain")

Run = Mapping[str, Any]


def view_decodes(results: Sequence[Result]) -> View:
    """Charts of each model and temperature; results that both have it share them."""
    view = View()
    found: dict[str, list[tuple[Result, Run]]] = {}
    for result in results:
        for run in result.content["runs"]:
            found.setdefault(_subject(run), []).append((result, run))
    if not found:
        raise ValueError("there are no runs")
    for subject, runs in found.items():
        view.tables += [_table(result, run, subject) for result, run in runs]
        view.tables[-1].notes += _differences(runs)
        view.charts += [_by_contender(subject, runs), _by_category(subject, runs)]
    return view


def _subject(run: Run) -> str:
    return f"{run['model']}, {run['dtype']}, temperature {number(run['plan']['temperature']):g}"


def _table(result: Result, run: Run, subject: str) -> Table:
    plan, prompts = run["plan"], run["prompt_set"]
    asked = f"{len(run['prompts'])} prompts of {prompts['source']}, {plan['max_tokens']} tokens each"
    table = Table(f"{result.name}: {subject}; {asked}", _COLUMNS)
    for entry in run["contenders"]:
        over = entry["over_plain"]
        figures = (f"{number(over[key]):.2f}" for key in ("mean", "minimum"))
        equal = f"{entry['equal_to_plain']}/{len(run['prompts'])}"
        speed = f"{number(entry['tokens_per_second']):.0f}"
        table.rows.append((entry["name"], speed, _median_cell(over), *figures, *_acceptance(entry["steps"]), equal))
    same = "the same bytes in every output" if run["same_bytes"] else f"NOT THE SAME BYTES: {len(run['mismatches'])}"
    table.notes.append(f"Paceline's contenders: {same}. Noise: {number(run['noise']):.1%}")
    return table


def _median_cell(over: Mapping[str, Any]) -> str:
    mark = _mark(over)
    brackets = f" ({mark.low:.2f} to {mark.high:.2f})" if mark.low is not None else ""
    return f"{mark.value:.2f}{brackets}"


def _acceptance(steps: Mapping[str, Any] | None) -> list[str]:
    if steps is None:
        return ["-"] * 3
    rates = [f"{number(steps[key]):.0%}" for key in ("draft_acceptance_rate", "acceptance_rate")]
    return [f"{number(steps['mean_acceptance_length']):.2f}", *rates]


def _differences(runs: Sequence[tuple[Result, Run]]) -> list[str]:
    """In what runs differ that are to be compared, besides the code and the machine."""
    facts: dict[str, Callable[[Run], Any]] = {
        "prompts": lambda run: run["prompt_set"]["digest"],
        "tokens per output": lambda run: run["plan"]["max_tokens"],
        "draft model": lambda run: run["draft"],
        "numeric path": lambda run: run["numerics"]["path"],
    }
    notes = []
    for name, fact in facts.items():
        found = [str(fact(run)) for _, run in runs]
        if len(set(found)) > 1:
            notes.append(f"Warning: these runs differ in their {name}: {', '.join(found)}")
    return notes


def _mark(over: Mapping[str, Any]) -> Mark:
    """The median, its interval, and the least."""
    intervals = over["intervals"]
    low, high = (number(intervals["median"][end]) if intervals else None for end in ("low", "high"))
    return Mark(number(over["median"]), low, high, number(over["minimum"]))


def _by_contender(subject: str, runs: Sequence[tuple[Result, Run]]) -> Bars:
    names = [
        entry["name"] for _, run in runs for entry in run["contenders"] if entry["name"] not in (PLAIN, PLAIN_AGAIN)
    ]
    labels = list(dict.fromkeys(names))
    series = []
    for rank, (result, run) in enumerate(runs):
        marks = {entry["name"]: _mark(entry["over_plain"]) for entry in run["contenders"]}
        series.append(Series(result.name, [marks.get(label) for label in labels], rank))
    return Bars(f"{subject}: speed-up over plain decoding", "times plain", labels, series, _band(runs))


def _by_category(subject: str, runs: Sequence[tuple[Result, Run]]) -> Bars:
    """Each run's best contender, which need not be the same one."""
    series, found = [], []
    for result, run in runs:
        (best,) = (entry for entry in run["contenders"] if entry["name"] == run["best_fixed"])
        found.append({name: _mark(over) for name, over in best["by_category"].items()})
        series.append((f"{result.name}, {best['name']}", found[-1]))
    labels = list(dict.fromkeys(name for marks in found for name in marks))
    drawn = [Series(name, [marks.get(label) for label in labels], i) for i, (name, marks) in enumerate(series)]
    return Bars(f"{subject}: by category", "times plain", labels, drawn, _band(runs))


def _band(runs: Sequence[tuple[Result, Run]]) -> Band:
    return Band(1.0, max(number(run["noise"]) for _, run in runs), "plain, ± noise")
