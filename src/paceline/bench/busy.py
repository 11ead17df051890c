"""`paceline bench busy`: what is left of decoding beside processes that compute, for Paceline and for transformers.

Each side has a fresh process, and as many threads as the other. They take turns, alone and beside 1, 2, ... processes
that do nothing but compute, round after round.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import median
from typing import Any

from paceline.bench.fresh import FreshProcess
from paceline.bench.names import AUTO, GENERATE, PLAIN
from paceline.bench.spinning import busy_processes
from paceline.bench.subject import SubjectOptions
from paceline.bench.timing import Ratio, ratio
from paceline.console import Table, progress
from paceline.doctor.machine import num_cores

ALONE = 0
NAMES = (PLAIN, AUTO, GENERATE)
_SIDES = "paceline.bench.busy_sides"


@dataclass(frozen=True)
class BusyPlan:
    """What is decoded, and beside how many busy processes."""

    prompt: str
    threads: int
    max_tokens: int = 48
    repeats: int = 5
    beside: tuple[int, ...] = (1, 2, 4)

    @property
    def loads(self) -> tuple[int, ...]:
        """Numbers of busy processes, none first."""
        return (ALONE, *self.beside)


@dataclass
class BusyRun:
    """All turns: seconds of whole calls, by contender and number of busy processes, in rounds."""

    subject: SubjectOptions
    plan: BusyPlan
    numerics: dict[str, Any]
    stock_dtype: str
    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    outputs: dict[str, list[list[int]]] = field(default_factory=dict)  # token ids

    def tokens_per_second(self, name: str, load: int) -> tuple[float, float, float]:
        """Median, least and most."""
        spent, count = self.seconds[name][load], len(self.outputs[name][0])
        return count / median(spent), count / max(spent), count / min(spent)

    def times_alone(self, name: str, load: int) -> Ratio:
        """How many times the time alone it takes; rounds are drawn jointly."""
        return ratio(self.seconds[name][load], self.seconds[name][ALONE])

    def over_transformers(self, name: str, load: int) -> Ratio:
        """How many times as fast as transformers it is beside as many."""
        return ratio(self.seconds[GENERATE][load], self.seconds[name][load])

    def mismatches(self) -> list[str]:
        """A sentence for each of Paceline's contenders that did not say the same every time."""
        plain = self.outputs[PLAIN][0]
        return [
            f"{name}: not the tokens of plain decoding"
            for name in (PLAIN, AUTO)
            if any(o != plain for o in self.outputs[name])
        ]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        cells = [
            {
                "contender": name,
                "busy_processes": load,
                "tokens_per_second": dict(
                    zip(("median", "min", "max"), self.tokens_per_second(name, load), strict=True)
                ),
                "times_alone": self.times_alone(name, load).as_dict(),
                "over_transformers": self.over_transformers(name, load).as_dict(),
                "seconds": self.seconds[name][load],
            }
            for name in self.seconds
            for load in self.plan.loads
        ]
        about = {"subject": asdict(self.subject), "plan": asdict(self.plan), "numerics": self.numerics}
        return about | {"cells": cells, "same_tokens": not self.mismatches(), "tokens": self.outputs[PLAIN][0]}


def bench_busy(subject: SubjectOptions, plan: BusyPlan) -> BusyRun:
    """All contenders in turns, in as many rounds as planned, each of them alone and beside every number of processes.

    Raises:
        StateError: one of the sides cannot be measured, and why.
    """
    common = {"model": subject.model, "dtype": subject.dtype, "device": subject.device, "threads": plan.threads}
    own = {**asdict(subject), "threads": plan.threads, "prompt": plan.prompt}
    with ExitStack() as stack:
        with progress(f"{subject.model}: loading"):
            ours = stack.enter_context(FreshProcess(f"{_SIDES}:paceline_side", own))
            theirs = FreshProcess(f"{_SIDES}:transformers_side", {**common, "ids": ours.opened["ids"]})
            stack.enter_context(theirs)
        run = BusyRun(subject, plan, ours.opened["numerics"], theirs.opened["dtype"])
        _measure(run, {PLAIN: ours, AUTO: ours, GENERATE: theirs})
    return run


def _measure(run: BusyRun, sides: Mapping[str, FreshProcess]) -> None:
    plan = run.plan
    run.seconds = {name: {load: [] for load in plan.loads} for name in NAMES}
    run.outputs = {name: [] for name in NAMES}
    turns = list(product(range(plan.repeats), plan.loads))
    with progress(f"{run.subject.model}: in turns", (len(turns) + 1) * len(NAMES)) as advance:
        for name in NAMES:  # what is prepared at first use
            sides[name].ask(name=name, max_tokens=plan.max_tokens)
            advance()
        for index, load in turns:
            with busy_processes(load):
                for name in (*NAMES[index % len(NAMES) :], *NAMES[: index % len(NAMES)]):
                    answer = sides[name].ask(name=name, max_tokens=plan.max_tokens)
                    run.seconds[name][load].append(answer["seconds"])
                    run.outputs[name].append(answer["tokens"])
                    advance()


def busy_table(run: BusyRun) -> Table:
    """One line per contender and number of busy processes."""
    plan, numerics = run.plan, run.numerics
    title = (
        f"{run.subject.model}, {numerics.get('dtype', run.stock_dtype)}, {plan.threads} threads of {num_cores()} "
        f"processors: {len(run.outputs[PLAIN][0])} tokens, median of {plan.repeats}"
    )
    table = Table(title, ("contender", "beside", "tokens/s", "min to max", "times the time alone", "x transformers"))
    for name, load in product(NAMES, plan.loads):
        usual, least, most = run.tokens_per_second(name, load)
        speed = (f"{usual:.1f}", f"{least:.1f} to {most:.1f}")
        alone = "" if load == ALONE else str(run.times_alone(name, load))
        over = "" if name == GENERATE else str(run.over_transformers(name, load))
        table.rows.append((name, f"{load} busy" if load else "none", *speed, alone, over))
    table.notes += [
        f"Numeric path: {numerics['path']}. Whole calls with prefill, each side in a process of its own, in turns",
        "Beside: processes that do nothing but compute. In brackets the 95 % interval over rounds",
    ]
    return table
