"""What the samples say: speeds by task, how many times as fast Paceline is, and whose tokens are whose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from goals import Goal

from paceline.bench.timing import Ratio
from peers.measure import PACELINE, Contender, Plan, Prompt
from peers.protocol import QUANTISED

OURS, PLAIN = "auto", "none"  # Paceline's modes
REFERENCE = ("transformers", "generate")
OTHER_WEIGHTS = "Q8_0"  # in the name of a mode that does not read the same weights, where those are floats
_MIX, _OF_MIX = "Q4_K_M", 1.5  # in the name of modes that Paceline is to lead by as much
_REPEATING = ("copy", "command", "session")  # texts that repeat themselves or their prompt: here drafting must pay
_RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """All contenders on one target at one temperature."""

    target: str
    dtype: str
    plan: Plan
    prompts: Sequence[Prompt]
    contenders: Sequence[Contender]

    @property
    def tasks(self) -> list[str]:
        """Names, in the order of the prompts."""
        return list(dict.fromkeys(prompt.task for prompt in self.prompts))

    def find(self, peer: str, mode: str) -> Contender | None:
        """A contender that has finished; None if there is none."""
        return next((c for c in self.contenders if (c.peer, c.mode) == (peer, mode) and is_complete(self, c)), None)

    def members(self, task: str) -> list[int]:
        """The prompts of a task."""
        return [index for index, prompt in enumerate(self.prompts) if prompt.task == task]


def is_complete(run: Run, contender: Contender) -> bool:
    """Whether it took its turn on every prompt and did not fail later."""
    return contender.failure is None and len(contender.seconds) == len(run.prompts)


def tokens_per_second(run: Run, contender: Contender, task: str) -> float:
    """Tokens of a task over the seconds of whole calls, prefill included; medians over the rounds."""
    members = run.members(task)
    return run.plan.max_tokens * len(members) / sum(median(contender.seconds[index]) for index in members)


def lead(run: Run, contender: Contender, task: str) -> Ratio | None:
    """How many times as fast Paceline is: the median over turns on the same prompt in the same round.

    With the 95 % interval of its bootstrap. None without Paceline.
    """
    ours = run.find(PACELINE, OURS)
    if ours is None:
        return None
    pairs = [
        their / our
        for index in run.members(task)
        for our, their in zip(ours.seconds[index], contender.seconds[index], strict=False)  # a round may be unfinished
    ]
    drawn = np.random.default_rng(0).choice(pairs, (_RESAMPLES, len(pairs)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return Ratio(median(pairs), float(low), float(high))


def closest(run: Run, task: str) -> tuple[Contender, Ratio] | None:
    """The mode, of all peers with the same weights, over which Paceline's lead is smallest; None if there is none."""
    return _closest_of(run, task, lambda mode: not has_other_weights(run, mode))


def has_other_weights(run: Run, mode: str) -> bool:
    """Whether a mode is shown for size alone."""
    return run.dtype not in QUANTISED and OTHER_WEIGHTS in mode


def _closest_of(run: Run, task: str, competes: Callable[[str], bool]) -> tuple[Contender, Ratio] | None:
    found = [c for c in run.contenders if c.peer != PACELINE and competes(c.mode) and is_complete(run, c)]
    leads = [(c, ratio) for c in found if (ratio := lead(run, c, task)) is not None]
    return min(leads, key=lambda pair: pair[1].value, default=None)


def reference_of(run: Run, contender: Contender) -> Contender | None:
    """Whose tokens it should have, greedily: transformers'.

    Random numbers are each peer's own, so of sampled tokens only Paceline's are compared, with those of its plain mode.
    """
    if run.plan.temperature == 0.0 and (reference := run.find(*REFERENCE)) is not None:
        return reference
    return run.find(PACELINE, PLAIN) if contender.peer == PACELINE else None


def divergences(contender: Contender, reference: Contender) -> list[int | None]:
    """For each prompt the index of the first token that differs; None where none does."""
    return [first_difference(contender.outputs[i][0], reference.outputs[i][0]) for i in sorted(reference.outputs)]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first index at which two outputs of one length differ."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)


def verdicts(run: Run) -> list[Goal]:
    """The lines to reach: the same bytes from all modes of Paceline, and its place on every task."""
    lines = [line for task in run.tasks if (line := _place(run, task)) is not None]
    return [*same_bytes(run), *lines, *_beside_mix(run)]


def _beside_mix(run: Run) -> list[Goal]:
    """Beside llama.cpp's best mode in its usual four bits."""
    leads = [_closest_of(run, task, lambda mode: _MIX in mode) for task in run.tasks]
    text = f"Paceline is at least {_OF_MIX} times as fast as llama.cpp's best mode in {_MIX}"
    return [
        Goal(f"{task}: {text}", f"{found[1]} times {found[0].name}", found[1].value >= _OF_MIX)
        for task, found in zip(run.tasks, leads, strict=True)
        if found is not None
    ]


def _place(run: Run, task: str) -> Goal | None:
    if (found := closest(run, task)) is None:
        return None
    best, ratio = found
    if task in _REPEATING or run.dtype in QUANTISED:
        text, is_reached = "Paceline is faster than every peer's best mode", ratio.value > 1.0
    else:
        text, is_reached = "Paceline is at least level with every peer's best mode", ratio.high >= 1.0
    return Goal(f"{task}: {text}", f"{ratio} times {best.name}", is_reached)


def same_bytes(run: Run) -> list[Goal]:
    """Paceline's promise, over modes and rounds."""
    plain = run.find(PACELINE, PLAIN)
    if plain is None:
        return []
    ours = [c for c in run.contenders if c.peer == PACELINE]
    outputs = [(i, tokens) for c in ours for i, many in c.outputs.items() for tokens in many]
    equal = sum(tokens == plain.outputs[i][0] for i, tokens in outputs)
    text = "all modes and rounds of Paceline have the tokens of its plain mode"
    return [Goal(text, f"{equal} of {len(outputs)} outputs", equal == len(outputs))]
