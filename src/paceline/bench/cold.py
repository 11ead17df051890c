"""`paceline bench pacer --cold`: the first request of a process, without and with experience that was kept.

For each task and in each round two processes follow each other over one cache folder, empty at first. The first is
*cold*; what it keeps is all that the second, *kept*, has. Either compares its own first request with plain decoding and
the best fixed contender after it, so that each ratio is of one process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import median
from typing import Any

from paceline.bench.fresh import FreshProcess
from paceline.bench.pacer import PLAIN
from paceline.bench.subject import SubjectOptions
from paceline.bench.tasks import Task
from paceline.console import Table, progress

COLD_TASKS = "story,copy,edit,command,maths,noise"
COLD, KEPT = "cold", "kept"
_SIDE = "paceline.bench.cold_side:cold_side"


@dataclass(frozen=True)
class ColdPlan:
    """What every process decodes, and how many pairs of them there are for each task."""

    max_tokens: int = 64
    repeats: int = 3
    budgets: tuple[int, ...] = (3, 7, 15, 31)
    turns: int = 3  # of plain decoding and the best fixed contenders, in each process


@dataclass(frozen=True)
class ColdVisit:
    """One process: seconds of its first request, and of what came after it, by contender and turn."""

    first_seconds: float
    num_tokens: int
    seconds: dict[str, list[float]]
    swept_seconds: dict[str, float]
    stats: dict[str, Any]  # of the first request
    different: list[str]  # contenders that did not emit plain decoding's bytes

    @property
    def plain_seconds(self) -> float:
        """A whole call of plain decoding, the median of its turns."""
        return median(self.seconds[PLAIN])

    @property
    def best(self) -> str:
        """The best fixed contender, plain decoding being one."""
        return min(self.seconds, key=lambda name: median(self.seconds[name]))

    @property
    def over_plain(self) -> float:
        """How many times as fast as plain decoding the first request was."""
        return self.plain_seconds / self.first_seconds

    @property
    def share(self) -> float:
        """The first request's speed as a share of the best fixed contender's."""
        return median(self.seconds[self.best]) / self.first_seconds

    @property
    def best_over_plain(self) -> float:
        """How many times as fast as plain decoding the best fixed contender was."""
        return self.plain_seconds / median(self.seconds[self.best])


@dataclass
class ColdRun:
    """All processes: by task, and by what they knew."""

    subject: SubjectOptions
    plan: ColdPlan
    numerics: dict[str, Any] = field(default_factory=dict)
    visits: dict[str, dict[str, list[ColdVisit]]] = field(default_factory=dict)

    def mismatches(self) -> list[str]:
        """A sentence for each contender that did not emit plain decoding's bytes."""
        return [
            f"{name}, {task}, {kind}: not the bytes of plain decoding"
            for task, kinds in self.visits.items()
            for kind, visits in kinds.items()
            for name in sorted({name for visit in visits for name in visit.different})
        ]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        tasks = {
            task: {kind: _summary(visits) | {"visits": [asdict(v) for v in visits]} for kind, visits in kinds.items()}
            for task, kinds in self.visits.items()
        }
        about = {"subject": asdict(self.subject), "plan": asdict(self.plan), "numerics": self.numerics}
        return about | {"tasks": tasks, "same_bytes": not self.mismatches()}


def bench_cold(subject: SubjectOptions, tasks: Sequence[Task], plan: ColdPlan) -> ColdRun:
    """Pairs of processes for each task, all tasks in each round.

    Raises:
        StateError: a process that cannot be measured, and why.
    """
    run = ColdRun(subject, plan, visits={task.task: {COLD: [], KEPT: []} for task in tasks})
    with progress(f"{subject.model}: first requests", 2 * len(tasks) * plan.repeats) as advance:
        for _, task in product(range(plan.repeats), tasks):
            with tempfile.TemporaryDirectory() as folder:
                for kind in (COLD, KEPT):
                    run.visits[task.task][kind].append(_visit(run, task, folder))
                    advance()
    return run


def _visit(run: ColdRun, task: Task, folder: str) -> ColdVisit:
    """One process from its start to its end, with this folder as its cache."""
    plan = run.plan
    with FreshProcess(_SIDE, asdict(run.subject), {"PACELINE_CACHE": folder}) as process:
        run.numerics = process.opened["numerics"]
        asked: dict[str, Any] = {"max_tokens": plan.max_tokens, "budgets": list(plan.budgets), "turns": plan.turns}
        return ColdVisit(**process.ask(task=asdict(task), **asked))


def _spread(visits: Sequence[ColdVisit], value: Callable[[ColdVisit], float]) -> dict[str, float]:
    values = [value(visit) for visit in visits]
    return {"median": median(values), "min": min(values), "max": max(values)}


def _summary(visits: Sequence[ColdVisit]) -> dict[str, dict[str, float]]:
    return {
        "over_plain": _spread(visits, lambda visit: visit.over_plain),
        "share": _spread(visits, lambda visit: visit.share),
        "best_over_plain": _spread(visits, lambda visit: visit.best_over_plain),
    }


def cold_table(run: ColdRun) -> Table:
    """One line per task."""
    subject, plan = run.subject, run.plan
    title = (
        f"{subject.model}, {run.numerics['dtype']}: first requests of fresh processes, at most {plan.max_tokens} "
        f"tokens, median of {plan.repeats} (least to most)"
    )
    columns = ("task", "plain ms/token", "cold x plain", "of best fixed", "kept x plain", "of best fixed", "best fixed")
    table = Table(title, columns)
    for task, kinds in run.visits.items():
        cells = [_text(_summary(kinds[kind])[key]) for kind in (COLD, KEPT) for key in ("over_plain", "share")]
        everything = [*kinds[COLD], *kinds[KEPT]]
        plain = median(visit.plain_seconds / visit.num_tokens for visit in everything)
        names = [visit.best for visit in everything]
        best = max(dict.fromkeys(names), key=names.count)
        over = median(visit.best_over_plain for visit in everything)
        table.rows.append((task, f"{plain * 1e3:.2f}", *cells, f"{best}: {over:.2f}"))
    table.notes += [
        f"Numeric path: {run.numerics['path']}. Whole calls with prefill; loading is not counted",
        "Cold: the cache folder was empty. Kept: the next process over the same folder. Each ratio is of one process, "
        "which decodes plainly and with the fixed contenders after its first request",
    ]
    return table


def _text(spread: dict[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"
