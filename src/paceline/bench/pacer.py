"""`paceline bench pacer`: kinds of text decoded plainly, by each drafter alone at fixed lengths, and under the pacer.

First every drafter is swept over all lengths on a few prompts of each task, the last task first; the pacer takes part,
and is cold. What did best then takes turns with plain decoding and with the pacer, which is warm by now.

Of a prompt's own answer nobody knows anything. Each contender is a tenant of its own in every round of every task and
asks each prompt once: its drafters have learnt from the task's earlier prompts in that round, as from a user's traffic.
The pacer's experience outlives rounds, but it consists of success counts and costs, and holds no text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from paceline.bench.subject import Subject
from paceline.bench.tasks import Task
from paceline.bench.timing import timed
from paceline.bench.watch import HostStep, WatchedPacer, forward_meter
from paceline.console import progress
from paceline.engine.ports import Pacer
from paceline.errors import ConfigError
from paceline.llm import LLM
from paceline.pacing import FixedPacer

PLAIN, PLAIN_AGAIN, PACER = "plain", "plain again", "pacer"
_HOPELESS = 1.15  # times slower in the sweep than the task's best fixed contender: not measured again
_NUM_LEADERS = 2  # fixed contenders, best over all tasks, that are measured in every task
_FIRST = "first"  # the round of the sweep


@dataclass(frozen=True)
class PacerPlan:
    """What is decoded, and how often."""

    max_tokens: int = 64
    repeats: int = 3
    num_prompts: int = 3  # of each task
    num_swept: int = 2  # of those, for the sweep
    budgets: tuple[int, ...] = (3, 7, 15, 31)


@dataclass(frozen=True)
class PacedContender:
    """A way to decode: drafters under a pacer."""

    name: str
    drafters: tuple[str, ...]
    pacer: Pacer


@dataclass(frozen=True)
class PacerSample:
    """One output: its tokens and their log-probabilities, the seconds of the whole call, and the statistics."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    seconds: float
    stats: dict[str, Any]

    @property
    def num_drafts(self) -> int:
        """Draft tokens that were verified."""
        return int(self.stats["num_draft_tokens"])


@dataclass
class PacerPrompt:
    """All outputs for one prompt, by contender."""

    task: Task
    ids: tuple[int, ...]
    swept: dict[str, PacerSample] = field(default_factory=dict)  # in the first round; empty for most prompts
    timed: dict[str, list[PacerSample]] = field(default_factory=dict)


@dataclass(frozen=True)
class PacerRun:
    """The whole measurement of one target."""

    name: str
    dtype: str
    numerics: dict[str, Any]
    plan: PacerPlan
    fixed: tuple[str, ...]  # names of the fixed contenders swept
    drafter_of: dict[str, str]  # fixed contender -> its drafter
    prompts: list[PacerPrompt]
    steps: list[HostStep]  # of the pacer, warm

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, in order."""
        return list(dict.fromkeys(prompt.task.task for prompt in self.prompts))

    def of(self, task: str) -> list[PacerPrompt]:
        """The prompts of a task."""
        return [prompt for prompt in self.prompts if prompt.task.task == task]

    def mismatches(self) -> list[str]:
        """A sentence for every output whose tokens or log-probabilities are not those of plain decoding."""
        found = []
        for prompt in self.prompts:
            plain = prompt.timed[PLAIN][0]
            outputs = [*prompt.swept.items(), *((n, s) for n, samples in prompt.timed.items() for s in samples)]
            for name, sample in outputs:
                if (sample.tokens, sample.logprobs) != (plain.tokens, plain.logprobs):
                    found.append(f"{name}: not the bytes of plain decoding after {prompt.task.prompt[-60:]!r}")
        return found

    def num_outputs(self) -> int:
        """Outputs that were compared."""
        return sum(len(p.swept) + sum(map(len, p.timed.values())) for p in self.prompts)


def chosen_tasks(tasks: Sequence[Task], names: str | None, num_prompts: int) -> list[Task]:
    """The first prompts of the tasks named in `a,b`; of all tasks if that is None.

    Raises:
        ConfigError: a task that there is not.
    """
    known = list(dict.fromkeys(task.task for task in tasks))
    wanted = known if names is None else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"tasks has {unknown[0]!r}; allowed: {', '.join(known)}")
    return [t for name in known if name in wanted for t in [t for t in tasks if t.task == name][:num_prompts]]


def bench_pacer(subject: Subject, tasks: Sequence[Task], plan: PacerPlan) -> PacerRun:
    """Sweep, choose, and measure in turns."""
    prompts = [PacerPrompt(task, fitting_ids(subject.llm, task, plan.max_tokens)) for task in tasks]
    fixed = {f"{name} {budget}": (name, budget) for name, budget in product(subject.drafters, plan.budgets)}
    with forward_meter() as meter:
        watched = WatchedPacer(subject.llm.engine.pacer, meter)
        bench = _Bench(subject, plan, watched, fixed)
        drafter_of = {name: drafter for name, (drafter, _) in fixed.items()}
        numerics = subject.llm.target.numerics()
        run = PacerRun(subject.name, subject.dtype, numerics, plan, tuple(fixed), drafter_of, prompts, watched.steps)
        bench.sweep(run)
        watched.steps.clear()
        bench.measure(run)
    return run


def bench_in_turns(subject: Subject, tasks: Sequence[Task], plan: PacerPlan) -> PacerRun:
    """Without a sweep and fixed contenders: plain decoding, the pacer and plain decoding again take turns."""
    prompts = [PacerPrompt(task, fitting_ids(subject.llm, task, plan.max_tokens)) for task in tasks]
    run = PacerRun(subject.name, subject.dtype, subject.llm.target.numerics(), plan, (), {}, prompts, [])
    bench = _Bench(subject, plan, subject.llm.engine.pacer, {})
    bench.warm_up(prompts[0])
    bench.measure(run)
    return run


def fitting_ids(llm: LLM, task: Task, max_tokens: int) -> tuple[int, ...]:
    """The prompt's ids; of a prompt too long for the model only the end."""
    room = min(llm.target.max_length, llm.target.capacity) - max_tokens
    if room < 1:
        raise ConfigError(f"max_tokens is {max_tokens}; allowed here: below {room + max_tokens}")
    return tuple(llm.encode(task.prompt)[-room:])


def decode(llm: LLM, prompt: PacerPrompt, contender: PacedContender, turn: str, max_tokens: int) -> PacerSample:
    """One output, by a contender who is a tenant of its own in each turn of each task."""
    sampling: Any = {"seed": 0} | prompt.task.sampling | {"max_tokens": max_tokens}
    output, seconds = timed(
        lambda: llm.generate(
            list(prompt.ids),
            drafters=list(contender.drafters),
            prediction=prompt.task.prediction,
            tenant=f"{contender.name}, {prompt.task.task}, {turn}",
            pacer=contender.pacer,
            **sampling,
        )
    )
    return PacerSample(output.token_ids, tuple(t.logprob for t in output.tokens), seconds, output.stats.as_dict())


class _Bench:
    """Decodes prompts with contenders."""

    def __init__(self, subject: Subject, plan: PacerPlan, pacer: Pacer, fixed: dict[str, tuple[str, int]]) -> None:
        self._llm, self._plan = subject.llm, plan
        self._plain, self._again = (PacedContender(name, (), FixedPacer(0)) for name in (PLAIN, PLAIN_AGAIN))
        self._pacer = PacedContender(PACER, subject.drafters, pacer)
        self._fixed = {name: PacedContender(name, (d,), FixedPacer(budget)) for name, (d, budget) in fixed.items()}

    def sweep(self, run: PacerRun) -> None:
        """The first round: some prompts of each task, last ones first, with everything."""
        prompts = [p for task in reversed(run.tasks) for p in reversed(run.of(task)[: self._plan.num_swept])]
        contenders = [self._plain, self._pacer, *self._fixed.values()]
        with progress(f"{run.name}: sweep", len(prompts) * len(contenders)) as advance:
            self.warm_up(prompts[0])
            for prompt, contender in product(prompts, contenders):
                told = _told_of_silence(prompt, run, contender.name)
                prompt.swept[contender.name] = told or self._decode(prompt, contender, _FIRST)
                advance()

    def warm_up(self, prompt: PacerPrompt) -> None:
        """Let plain decoding and each drafter pay for what is prepared at first use."""
        for contender in self._distinct():
            self._decode(prompt, contender, "warm-up")

    def measure(self, run: PacerRun) -> None:
        """All prompts, as often as planned, with what is worth measuring in their task."""
        chosen = {task: self._contenders(run, task) for task in run.tasks}
        rounds = range(self._plan.repeats)
        total = sum(len(chosen[p.task.task]) for p in run.prompts) * len(rounds)
        with progress(f"{run.name}: in turns", total) as advance:
            for index, prompt in product(rounds, run.prompts):
                for contender in rotated(chosen[prompt.task.task], index):
                    sample = self._decode(prompt, contender, str(index))
                    prompt.timed.setdefault(contender.name, []).append(sample)
                    advance()

    def _contenders(self, run: PacerRun, task: str) -> list[PacedContender]:
        names = dict.fromkeys([*worth_measuring(run, task), *leaders(run, _NUM_LEADERS)])
        return [self._plain, self._pacer, self._again, *(self._fixed[name] for name in names)]

    def _distinct(self) -> list[PacedContender]:
        """Plain, and each drafter once: what is prepared at first use is prepared by them."""
        return [self._plain, *{contender.drafters: contender for contender in self._fixed.values()}.values()]

    def _decode(self, prompt: PacerPrompt, contender: PacedContender, turn: str) -> PacerSample:
        return decode(self._llm, prompt, contender, turn, self._plan.max_tokens)


def rotated(contenders: list[PacedContender], by: int) -> Iterator[PacedContender]:
    """Each round begins with another one, so that nobody always follows the same one."""
    first = by % len(contenders)
    yield from (*contenders[first:], *contenders[:first])


def _told_of_silence(prompt: PacerPrompt, run: PacerRun, name: str) -> PacerSample | None:
    """What a drafter's first length took if it had nothing to do for the request: no length changes that."""
    drafter = run.drafter_of.get(name)
    samples = (s for known, s in prompt.swept.items() if run.drafter_of.get(known, "") == drafter)
    first = next(samples, None)
    if first is None or drafter is None or first.stats["drafters"].get(drafter, {}).get("num_proposals", 0):
        return None
    return first


def swept_seconds(prompts: Sequence[PacerPrompt], name: str) -> float:
    """Seconds per token of a contender over those prompts that were swept."""
    samples = [prompt.swept[name] for prompt in prompts if prompt.swept]
    return sum(s.seconds for s in samples) / sum(len(s.tokens) for s in samples)


def worth_measuring(run: PacerRun, task: str) -> list[str]:
    """Each drafter at its best length in the sweep, if it said anything and was not hopeless."""
    prompts = [prompt for prompt in run.of(task) if prompt.swept]
    speaking = [name for name in run.fixed if any(prompt.swept[name].num_drafts for prompt in prompts)]
    seconds = {name: swept_seconds(prompts, name) for name in speaking}
    best = {drafter: _fastest(speaking, seconds, run, drafter) for drafter in set(run.drafter_of.values())}
    fastest = min(seconds.values(), default=0.0)
    return [name for name in run.fixed if name in best.values() and seconds[name] <= _HOPELESS * fastest]


def _fastest(names: Sequence[str], seconds: dict[str, float], run: PacerRun, drafter: str) -> str | None:
    return min((n for n in names if run.drafter_of[n] == drafter), key=lambda name: seconds[name], default=None)


def leaders(run: PacerRun, count: int) -> list[str]:
    """The fixed contenders that were best in the sweep over all tasks together."""
    tasks = [run.of(task) for task in run.tasks]
    key: Callable[[str], float] = lambda name: sum(swept_seconds(prompts, name) for prompts in tasks)  # noqa: E731
    return sorted(run.fixed, key=key)[:count]
