"""`paceline bench pacer --in-a-row N`: requests on which nothing can be drafted, one after the other in one engine.

Each is decoded plainly, under the pacer, and plainly again, in turns; the pacer knows what the requests before it have
taught. What it pays to find out that drafting is of no use falls on the first of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.bench.pacer import PACER, PLAIN, PLAIN_AGAIN, PacerPlan, PacerRun, bench_in_turns
from paceline.bench.pacer_summary import Guard, guard_of
from paceline.bench.subject import Subject
from paceline.bench.tasks import Task
from paceline.bench.timing import Ratio, ratio_of_sums
from paceline.console import Table

ROW_TASK = "noise"


@dataclass(frozen=True)
class RowSummary:
    """Speeds over plain decoding: all requests together, and each by itself."""

    whole: Ratio  # sums over requests of medians over rounds
    first_round: float  # before the engine had seen any of the requests
    requests: list[float]  # each request, the median of its rounds
    again_whole: Ratio  # plain decoding against itself
    again_requests: list[float]
    guard: Guard

    @property
    def worst(self) -> int:
        """The index of the request with the lowest ratio."""
        return min(range(len(self.requests)), key=lambda index: self.requests[index])

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self) | {"worst": self.requests[self.worst], "again_worst": min(self.again_requests)}


def row_tasks(tasks: Sequence[Task], count: int) -> list[Task]:
    """So many different requests of the given ones in turn: the words in another order, and another seed."""
    return [_varied(task, index) for index, task in enumerate(islice(cycle(tasks), count))]


def _varied(task: Task, index: int) -> Task:
    words = task.prompt.split()
    random.Random(index).shuffle(words)
    return replace(task, prompt=" ".join(words), sampling=task.sampling | {"seed": index})


def bench_row(subject: Subject, tasks: Sequence[Task], plan: PacerPlan, count: int) -> PacerRun:
    """Rounds of the same requests, each round in another tenant's name: no drafter knows an answer."""
    return bench_in_turns(subject, row_tasks(tasks, count), plan)


def summarise_row(run: PacerRun) -> RowSummary:
    """What the rounds say."""
    plain, paced, again = (_seconds(run, name) for name in (PLAIN, PACER, PLAIN_AGAIN))
    return RowSummary(
        ratio_of_sums(plain, paced),
        float(plain[:, 0].sum() / paced[:, 0].sum()),
        _by_request(plain, paced),
        ratio_of_sums(plain, again),
        _by_request(plain, again),
        guard_of([sample.stats["pacing"] for prompt in run.prompts for sample in prompt.timed[PACER]]),
    )


def _seconds(run: PacerRun, name: str) -> NDArray[np.float64]:
    """Whole calls, (requests, rounds)."""
    return np.array([[sample.seconds for sample in prompt.timed[name]] for prompt in run.prompts])


def _by_request(plain: NDArray[np.float64], other: NDArray[np.float64]) -> list[float]:
    return [median(map(float, one)) / median(map(float, two)) for one, two in zip(plain, other, strict=True)]


def row_table(run: PacerRun, summary: RowSummary) -> Table:
    """One line per request, and one for all together."""
    plan = run.plan
    title = (
        f"{run.name}, {run.dtype}: {len(run.prompts)} requests in a row on which nothing can be drafted, at most "
        f"{plan.max_tokens} tokens each, median of {plan.repeats}"
    )
    table = Table(title, ("request", "plain ms", "pacer x plain", "plain again x plain", "drafters asked", "drafts"))
    for index, prompt in enumerate(run.prompts):
        plain = median(sample.seconds for sample in prompt.timed[PLAIN])
        paced = prompt.timed[PACER]
        asked = median(_num_proposals(sample.stats) for sample in paced)
        drafts = median(sample.num_drafts for sample in paced)
        ratios = (f"{summary.requests[index]:.3f}", f"{summary.again_requests[index]:.3f}")
        table.rows.append((str(index + 1), f"{plain * 1e3:.0f}", *ratios, f"{asked:.0f}", f"{drafts:.0f}"))
    table.rows.append(("all", "", _exact(summary.whole), _exact(summary.again_whole), "", ""))
    table.notes += [
        f"Whole calls. The worst request: {summary.requests[summary.worst]:.3f} of plain, number {summary.worst + 1}; "
        f"plain against itself at worst {min(summary.again_requests):.3f}",
        f"The first round alone, before the engine knew any of the requests: {summary.first_round:.3f}",
        f"Numeric path: {run.numerics['path']}. In brackets the 95 % interval over rounds",
    ]
    return table


def _num_proposals(stats: dict[str, Any]) -> int:
    return sum(int(drafter["num_proposals"]) for drafter in stats["drafters"].values())


def _exact(found: Ratio) -> str:
    """With a digit more than elsewhere: what is to be reached is close to one."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def row_json(run: PacerRun, summary: RowSummary) -> dict[str, Any]:
    """Everything measured."""
    seconds = {name: _seconds(run, name).tolist() for name in (PLAIN, PACER, PLAIN_AGAIN)}
    about = {"model": run.name, "dtype": run.dtype, "numerics": run.numerics, "plan": asdict(run.plan)}
    return about | {"summary": summary.as_dict(), "same_bytes": not run.mismatches(), "seconds": seconds}
