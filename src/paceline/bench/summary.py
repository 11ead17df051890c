"""What a decode measurement says: speed-ups, and where a step's time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.bench.contenders import DecodeContender
from paceline.bench.decode import DecodePrompt, DecodeRun, DecodeSample
from paceline.bench.names import GENERATE, PLAIN, PLAIN_AGAIN
from paceline.bench.timing import BootstrapInterval, interval, resamples

_ENTRIES = (
    "num_emitted_tokens",
    "num_steps",
    "num_draft_tokens",
    "num_evaluated_drafts",
    "num_accepted_draft_tokens",
)
_SECONDS = ("prefill_seconds", "decode_seconds", "forward_seconds")


@dataclass(frozen=True)
class Intervals:
    """How far the figures of a `Spread` would move with other prompts of the same kinds: prompts drawn anew."""

    median: BootstrapInterval
    mean: BootstrapInterval
    together: BootstrapInterval


@dataclass(frozen=True)
class Spread:
    """Speed-ups over a reference: across prompts, and of all prompts together (total over total time)."""

    median: float
    mean: float
    minimum: float
    together: float
    intervals: Intervals | None = None  # unknown for a single prompt


@dataclass(frozen=True)
class StepCounts:
    """Paceline's own account of a contender, summed over all prompts and repeats."""

    mean_acceptance_length: float
    draft_acceptance_rate: float  # of proposed drafts
    acceptance_rate: float  # of evaluated drafts
    step_seconds: float
    outside_share: float  # of decoding, spent outside the target's forward: host and drafters
    drafter_share: float  # of decoding, spent in drafters, their start included
    num_drafter_failures: int


@dataclass(frozen=True)
class ContenderSummary:
    """One contender."""

    name: str
    tokens_per_second: float
    over_generate: Spread
    over_plain: Spread
    by_category: dict[str, Spread]  # over plain
    equal_to_plain: int  # prompts whose tokens are those of plain Paceline, in every repeat
    steps: StepCounts | None
    times_noise: float | None = None  # how many times the noise it differs from plain

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Summary:
    """All contenders, and which fixed contender has the best median speed-up over plain decoding."""

    contenders: dict[str, ContenderSummary]
    best: str
    noise: float  # by how much plain decoding differs from itself: the far end of the interval of its median
    forward_share: float  # of a step of transformers generate, spent in a bare forward of transformers


def summarise(run: DecodeRun) -> Summary:
    """The summary of a measurement."""
    noise = _noise(_spread(run.prompts, PLAIN_AGAIN, PLAIN))
    contenders = {contender.name: _summarise(run, contender, noise) for contender in run.contenders}
    swept = [s.name for s in run.contenders if s.sweep]
    best = max(swept, key=lambda name: contenders[name].over_plain.median)
    bare = median(s for prompt in run.prompts for s in prompt.bare_forwards)
    step = median(_seconds(prompt, GENERATE) / _num_tokens(prompt, GENERATE) for prompt in run.prompts)
    return Summary(contenders, best, noise, bare / step)


def _noise(itself: Spread) -> float:
    found = itself.intervals
    return found.median.farthest_from(1.0) if found else abs(itself.median - 1.0)


def _summarise(run: DecodeRun, contender: DecodeContender, noise: float) -> ContenderSummary:
    name = contender.name
    prompts = run.prompts
    categories = {p.prompt.category: [q for q in prompts if q.prompt.category == p.prompt.category] for p in prompts}
    equal = sum(all(s.tokens == p.samples[PLAIN][0].tokens for s in p.samples[name]) for p in prompts)
    over_plain = _spread(prompts, name, PLAIN)
    return ContenderSummary(
        name,
        sum(_num_tokens(p, name) for p in prompts) / sum(_seconds(p, name) for p in prompts),
        _spread(prompts, name, GENERATE),
        over_plain,
        {category: _spread(members, name, PLAIN) for category, members in categories.items()},
        equal,
        _steps([s for p in prompts for s in p.samples[name]]) if contender.is_paceline else None,
        abs(over_plain.median - 1.0) / noise if noise > 0.0 and name != PLAIN else None,
    )


def _spread(prompts: Sequence[DecodePrompt], name: str, reference: str) -> Spread:
    """Speed-ups per emitted token, so that an output cut short by a stop would not look fast."""
    ours = np.array([_seconds(p, name) / _num_tokens(p, name) for p in prompts])
    theirs = np.array([_seconds(p, reference) / _num_tokens(p, reference) for p in prompts])
    ratios = theirs / ours
    return Spread(
        float(np.median(ratios)),
        float(ratios.mean()),
        float(ratios.min()),
        float(theirs.sum() / ours.sum()),
        _intervals(ours, theirs) if len(prompts) > 1 else None,
    )


def _intervals(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Intervals:
    """By the bootstrap over prompts: both times of a prompt are drawn together."""
    drawn = resamples(len(ours))
    ratios = (theirs / ours)[drawn]
    together = theirs[drawn].sum(1) / ours[drawn].sum(1)
    return Intervals(interval(np.median(ratios, 1)), interval(ratios.mean(1)), interval(together))


def _seconds(prompt: DecodePrompt, name: str) -> float:
    return median(sample.seconds for sample in prompt.samples[name])


def _num_tokens(prompt: DecodePrompt, name: str) -> int:
    return len(prompt.samples[name][0].tokens)


def _steps(samples: Sequence[DecodeSample]) -> StepCounts:
    stats = [sample.stats for sample in samples if sample.stats is not None]
    total = {key: sum(s[key] for s in stats) for key in (*_ENTRIES, *_SECONDS)}
    drafters = [drafter for s in stats for drafter in s["drafters"].values()]
    decode = total["decode_seconds"]
    return StepCounts(
        total["num_emitted_tokens"] / total["num_steps"],
        total["num_accepted_draft_tokens"] / max(total["num_draft_tokens"], 1),
        total["num_accepted_draft_tokens"] / max(total["num_evaluated_drafts"], 1),
        decode / total["num_steps"],
        (decode - total["forward_seconds"]) / decode,
        sum(drafter["seconds"] for drafter in drafters) / decode,
        sum(drafter["num_failures"] for drafter in drafters),
    )
