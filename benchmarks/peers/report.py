"""One table per run, on the screen and in Markdown, and everything in JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.console import Table
from peers.measure import PACELINE, Contender
from peers.protocol import QUANTISED
from peers.results import (
    OTHER_WEIGHTS,
    Run,
    divergences,
    has_other_weights,
    is_complete,
    lead,
    reference_of,
    tokens_per_second,
    verdicts,
)

Versions = Mapping[str, Mapping[str, str]]  # by peer, by package


def table(run: Run, versions: Versions) -> Table:
    """Contenders by tasks: tokens per second, and how many times as fast Paceline's `auto` is."""
    plan = run.plan
    how = "greedy" if plan.temperature == 0.0 else f"temperature {plan.temperature:g}"
    title = f"{run.target}, {run.dtype}, {how}, {plan.max_tokens} tokens, {plan.repeats} rounds"
    tasks = [f"{task} ({len(run.members(task))})" for task in run.tasks]
    found = Table(title, ["peer and mode", *tasks, "tokens of the reference, or why absent"])
    found.rows = [_row(run, contender) for contender in sorted(run.contenders, key=_order)]
    found.notes = _notes(run, versions)
    return found


def _order(contender: Contender) -> tuple[bool, str]:
    return contender.peer != PACELINE, contender.peer  # sorted() keeps the order of modes


def _row(run: Run, contender: Contender) -> list[str]:
    if not is_complete(run, contender):
        return [contender.name, *["–"] * len(run.tasks), contender.failure or "unfinished"]
    return [contender.name, *[_cell(run, contender, task) for task in run.tasks], _agreement(run, contender)]


def _cell(run: Run, contender: Contender, task: str) -> str:
    speed = f"{tokens_per_second(run, contender, task):.0f}"
    ratio = lead(run, contender, task)
    return f"{speed} · {ratio}" if ratio is not None else speed


def _agreement(run: Run, contender: Contender) -> str:
    reference = reference_of(run, contender)
    if reference is None:
        return "–"
    places = divergences(contender, reference)
    different = [place for place in places if place is not None]
    text = f"{len(places) - len(different)} of {len(places)}"
    return f"{text}, else from token {min(different)} on" if different else text


def _notes(run: Run, versions: Versions) -> list[str]:
    notes = [
        "A cell: tokens per second of whole calls · how many times as fast Paceline auto is (95 % interval). "
        "In brackets: prompts.",
        "The reference is transformers generate, greedily; ties in rounding may fall differently elsewhere. "
        "Sampled: Paceline none.",
    ]
    if run.dtype in QUANTISED:
        notes.append("Each peer makes its own blocks of the same weights in bfloat16, of about as many bits.")
    if any(has_other_weights(run, contender.mode) for contender in run.contenders):
        notes.append(f"{OTHER_WEIGHTS}: half the bytes of bfloat16 and other weights, so it is no rival, only shown.")
    listed = [f"{peer} ({', '.join(f'{k} {v}' for k, v in found.items())})" for peer, found in versions.items()]
    return [*notes, f"Versions: {'; '.join(listed)}."]


def markdown(runs: Sequence[Run], versions: Versions, origin: Mapping[str, Any]) -> str:
    """All tables with their lines to reach, and where they come from."""
    names = ("date", "commit", "processor", "instruction_set", "threads", "load_average")
    head = "# Paceline beside other engines\n\n" + "; ".join(
        f"{name} {origin[name]}" for name in names if name in origin
    )
    command = f"\n\n```\n{origin['command']}\n```\n"
    return head + command + "".join(_section(run, versions) for run in runs)


def _section(run: Run, versions: Versions) -> str:
    found = table(run, versions)
    lines = [found.columns, ["---"] * len(found.columns), *found.rows]
    rows = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    notes = "\n".join(f"- {note}" for note in [*map(str, verdicts(run)), *found.notes])
    return f"\n## {found.title}\n\n{rows}\n\n{notes}\n"


def as_json(run: Run) -> dict[str, Any]:
    """A run with every sample."""
    return {
        "target": run.target,
        "dtype": run.dtype,
        "temperature": run.plan.temperature,
        "max_tokens": run.plan.max_tokens,
        "repeats": run.plan.repeats,
        "prompts": [{"task": prompt.task, "ids": prompt.ids} for prompt in run.prompts],
        "contenders": [_contender(run, contender) for contender in run.contenders],
        "reach": [line.as_dict() for line in verdicts(run)],
    }


def _contender(run: Run, contender: Contender) -> dict[str, Any]:
    found: dict[str, Any] = {"peer": contender.peer, "mode": contender.mode, "failure": contender.failure}
    found |= {"seconds": contender.seconds, "outputs": contender.outputs}
    if is_complete(run, contender):
        found["tokens_per_second"] = {task: tokens_per_second(run, contender, task) for task in run.tasks}
        leads = {task: lead(run, contender, task) for task in run.tasks}
        found["lead"] = {task: ratio.as_dict() for task, ratio in leads.items() if ratio is not None}
    return found
