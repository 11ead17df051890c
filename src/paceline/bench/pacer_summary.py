"""What a measurement of the pacer says: speed-ups by task and over the mix, and the guard's account.

A task's seconds per token are those of its prompts together, each the median of its rounds; the mix gives every task
the same number of tokens. Speed-ups are ratios of these, whole calls with prefill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import geometric_mean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.bench.pacer import PACER, PLAIN, PLAIN_AGAIN, PacerPrompt, PacerRun, swept_seconds
from paceline.bench.timing import Ratio, ratio_of_sums

HOST_ROWS = (12, 16)  # rows of the steps whose host time counts


@dataclass(frozen=True)
class TaskSummary:
    """One task; speed-ups are over plain decoding."""

    task: str
    plain_seconds: float  # per token
    noise: float  # plain decoding over plain decoding
    pacer: Ratio
    cold: float  # the pacer in the first round, when it had seen nothing or little
    decoding: float  # the pacer's without prefill
    mean_acceptance_length: float  # under the pacer
    fixed: dict[str, float]  # measured in turns
    swept: dict[str, float]  # all fixed contenders, in the first round
    stops: dict[str, int]  # why drafting went no further -> steps

    @property
    def best(self) -> str:
        """The best fixed contender, plain decoding being one."""
        return max(self.fixed, key=lambda name: self.fixed[name])

    @property
    def share(self) -> float:
        """The pacer's speed-up over that of the best fixed contender."""
        return self.pacer.value / self.fixed[self.best]


@dataclass(frozen=True)
class Guard:
    """Runs under the pacer against what the guard allows, by a real clock."""

    num_runs: int
    num_over: int  # that took longer than (1 + delta) * plain + 4 * t1
    most_over: float  # by the largest share of that
    num_over_bound: int  # longer than that and the cost error: never, if the proof holds
    median_cost_error: float  # actual less estimated cost of a run, as a share of its time
    max_cost_error: float


@dataclass(frozen=True)
class Host:
    """Drafting and pacing beside the draft model's forwards, in steps of `HOST_ROWS` rows; seconds."""

    num_steps: int
    median: float
    upper: float  # of nine steps in ten


@dataclass(frozen=True)
class PacerSummary:
    """Everything that the table shows, and the guard's and the host's account."""

    tasks: dict[str, TaskSummary]
    mix: Ratio  # the pacer, all tasks together
    mix_mean: float  # the geometric mean of the tasks' speed-ups
    mix_fixed: dict[str, float]  # those fixed contenders that were measured in every task
    mix_swept: dict[str, float]  # all of them in the first round
    guard: Guard
    host: Host | None  # None if no step had so many rows
    num_outputs: int
    num_mismatches: int

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def summarise_pacer(run: PacerRun) -> PacerSummary:
    """The summary of a measurement."""
    tasks = {task: _task(run, task) for task in run.tasks}
    everywhere = [name for name in (PLAIN, *run.fixed) if all(name in prompt.timed for prompt in run.prompts)]
    return PacerSummary(
        tasks,
        _over_plain(run, run.tasks, PACER),
        geometric_mean(summary.pacer.value for summary in tasks.values()),
        {name: _over_plain(run, run.tasks, name).value for name in everywhere},
        {name: _swept_over_plain(run, run.tasks, name) for name in run.fixed},
        guard_of([s.stats["pacing"] for prompt in run.prompts for s in _of_pacer(prompt)]),
        _host(run),
        run.num_outputs(),
        len(run.mismatches()),
    )


def _task(run: PacerRun, task: str) -> TaskSummary:
    prompts = run.of(task)
    samples = [sample for prompt in prompts for sample in prompt.timed[PACER]]
    measured = [name for name in prompts[0].timed if name not in (PACER, PLAIN_AGAIN)]
    stops: Counter[str] = Counter()
    for sample in samples:
        stops.update(sample.stats["pacing"]["stops"])
    return TaskSummary(
        task,
        float(np.median(_per_token(run, [task], PLAIN), 1).sum()),
        _over_plain(run, [task], PLAIN_AGAIN).value,
        _over_plain(run, [task], PACER),
        _swept_over_plain(run, [task], PACER),
        _decode_seconds(prompts, PLAIN) / _decode_seconds(prompts, PACER),
        sum(s.stats["num_emitted_tokens"] for s in samples) / sum(s.stats["num_steps"] for s in samples),
        {name: _over_plain(run, [task], name).value for name in measured},
        {name: _swept_over_plain(run, [task], name) for name in run.fixed},
        dict(stops.most_common()),
    )


def _per_token(run: PacerRun, tasks: Sequence[str], name: str) -> NDArray[np.float64]:
    """Seconds (prompts, rounds) over the number of tokens of the prompt's task: their sum is that of the tasks."""
    rows = []
    for task in tasks:
        prompts = run.of(task)
        tokens = sum(len(prompt.timed[PLAIN][0].tokens) for prompt in prompts)
        rows += [[sample.seconds / tokens for sample in prompt.timed[name]] for prompt in prompts]
    return np.array(rows)


def _over_plain(run: PacerRun, tasks: Sequence[str], name: str) -> Ratio:
    return ratio_of_sums(_per_token(run, tasks, PLAIN), _per_token(run, tasks, name))


def _swept_over_plain(run: PacerRun, tasks: Sequence[str], name: str) -> float:
    plain, other = (sum(swept_seconds(run.of(task), n) for task in tasks) for n in (PLAIN, name))
    return plain / other


def _decode_seconds(prompts: Sequence[PacerPrompt], name: str) -> float:
    return sum(median(float(s.stats["decode_seconds"]) for s in prompt.timed[name]) for prompt in prompts)


def _of_pacer(prompt: PacerPrompt) -> list[Any]:
    swept = [prompt.swept[PACER]] if prompt.swept else []
    return [*swept, *prompt.timed[PACER]]


def guard_of(accounts: Sequence[dict[str, float]]) -> Guard:
    """Requests' accounts held against their bounds."""
    over = [a["elapsed_seconds"] / (a["bound_seconds"] - a["cost_error_seconds"]) - 1.0 for a in accounts]
    errors = [a["cost_error_seconds"] / a["elapsed_seconds"] for a in accounts]
    slack = 1e-9  # seconds: sums of floats
    return Guard(
        len(accounts),
        sum(share > 0.0 for share in over),
        max(0.0, *over),
        sum(a["elapsed_seconds"] > a["bound_seconds"] + slack for a in accounts),
        median(errors),
        max(errors),
    )


def _host(run: PacerRun) -> Host | None:
    low, high = HOST_ROWS
    seconds = [step.seconds for step in run.steps if low <= step.rows <= high]
    return Host(len(seconds), median(seconds), float(np.quantile(seconds, 0.9))) if seconds else None
