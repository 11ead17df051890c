"""`paceline bench decode`: the same prompts through every contender, in turns, and every output kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paceline.bench.collecting import collecting_seconds
from paceline.bench.contenders import DecodeContender, DecodeWork, Pair
from paceline.bench.forwards import TransformersForward
from paceline.bench.names import GENERATE, PLAIN
from paceline.bench.prompting import encode_prompts
from paceline.bench.timing import interleave, timed
from paceline.console import progress
from paceline.text.prompt_formats import Prompt
from paceline.text.prompt_sets import PromptSet

_BARE_FORWARDS = 4  # per prompt
_RUN_UP = 4  # untimed tokens before each turn


@dataclass(frozen=True)
class DecodePlan:
    """What every contender decodes, and how often."""

    max_tokens: int = 96
    temperature: float = 0.0
    repeats: int = 3


@dataclass(frozen=True)
class DecodeSample:
    """One output: its tokens, the seconds of the whole call, and Paceline's statistics."""

    tokens: tuple[int, ...]
    seconds: float
    stats: dict[str, Any] | None


@dataclass
class DecodePrompt:
    """All outputs for one prompt, by contender."""

    prompt: Prompt
    ids: tuple[int, ...]
    samples: dict[str, list[DecodeSample]] = field(default_factory=dict)
    bare_forwards: list[float] = field(default_factory=list)  # seconds of transformers' own forward of one row


@dataclass(frozen=True)
class DifferentOutput:
    """A Paceline output that is not the plain one: never to be seen."""

    contender: str
    prompt: str
    index: int  # of the first token that differs

    def __str__(self) -> str:
        return f"{self.contender}: token {self.index} differs from plain decoding after {self.prompt!r}"


@dataclass(frozen=True)
class DecodeRun:
    """The whole measurement of one pair at one temperature."""

    name: str
    draft_name: str | None
    dtype: str
    numerics: dict[str, Any]
    plan: DecodePlan
    contenders: list[DecodeContender]
    prompts: list[DecodePrompt]
    collecting_seconds: float  # of a plain step, for what the report shows
    about_prompts: dict[str, Any]  # where they came from, how they were read, how many did not fit

    def mismatches(self) -> list[DifferentOutput]:
        """Every Paceline output of every repeat that differs from the first plain one."""
        found = []
        for run in self.prompts:
            plain = run.samples[PLAIN][0].tokens
            for contender in (s for s in self.contenders if s.is_paceline):
                for sample in run.samples[contender.name]:
                    index = _first_difference(sample.tokens, plain)
                    if index is not None:
                        found.append(DifferentOutput(contender.name, run.prompt.text[:60], index))
        return found


def bench_decode(pair: Pair, contenders: Sequence[DecodeContender], prompts: PromptSet, plan: DecodePlan) -> DecodeRun:
    """Decode every prompt with every contender in turns, after one untimed output of each."""
    encoded = encode_prompts(pair.llm, prompts.prompts, plan.max_tokens)
    about = prompts.as_dict() | {"form": encoded.form, "num_too_long": encoded.num_too_long}
    runs = [DecodePrompt(one.prompt, one.ids) for one in encoded.prompts]
    label = f"{pair.name}, temperature {plan.temperature:g}: outputs"
    with progress(label, (len(runs) * plan.repeats + 1) * len(contenders)) as advance:
        _warm_up(contenders, _job(runs[0], plan), advance)
        for run in runs:
            _decode_prompt(run, contenders, plan, advance)
            run.bare_forwards += _bare_forwards(pair, run)
    numerics = pair.llm.target.numerics()
    collecting = collecting_seconds(pair.llm.target.vocab_size)
    return DecodeRun(pair.name, pair.draft_name, pair.dtype, numerics, plan, list(contenders), runs, collecting, about)


def _job(run: DecodePrompt, plan: DecodePlan) -> DecodeWork:
    return DecodeWork(run.ids, plan.max_tokens, plan.temperature)


def _warm_up(contenders: Sequence[DecodeContender], job: DecodeWork, advance: Callable[[], None]) -> None:
    for contender in contenders:
        contender.run(job)
        advance()


def _decode_prompt(
    run: DecodePrompt, contenders: Sequence[DecodeContender], plan: DecodePlan, advance: Callable[[], None]
) -> None:
    """Timed turns, each after a few untimed tokens of its own: the contender before leaves its data in the caches."""
    job = _job(run, plan)
    run_up = replace(job, max_tokens=min(_RUN_UP, plan.max_tokens))
    for _, contender in itertools.product(range(plan.repeats), contenders):
        contender.run(run_up)
        (tokens, stats), seconds = timed(lambda s=contender: s.run(job))  # type: ignore[misc]
        run.samples.setdefault(contender.name, []).append(DecodeSample(tokens, seconds, stats))
        advance()


def _bare_forwards(pair: Pair, run: DecodePrompt) -> list[float]:
    """Seconds of transformers' forward of one row in the middle of the output that it generated."""
    output = run.samples[GENERATE][0].tokens
    forward = TransformersForward(pair.model, (*run.ids, *output[: len(output) // 2]))
    return interleave([forward.contender("bare", 1)], _BARE_FORWARDS)["bare"]


def _first_difference(tokens: Sequence[int], plain: Sequence[int]) -> int | None:
    pairs = itertools.zip_longest(tokens, plain)
    return next((i for i, (token, expected) in enumerate(pairs) if token != expected), None)
