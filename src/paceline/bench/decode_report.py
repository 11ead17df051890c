"""A decode measurement as tables and as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from paceline.bench.decode import DecodePrompt, DecodeRun, DecodeSample
from paceline.bench.names import GENERATE, PLAIN
from paceline.bench.summary import ContenderSummary, Spread, Summary
from paceline.console import Table

_COLUMNS = (
    "tokens/s",
    "x generate",
    "x plain",
    "x noise",
    "mean",
    "least",
    "together",
    "τ",
    "ms/step",
    "not forward",
    "drafters",
)


def contenders_table(run: DecodeRun, summary: Summary) -> Table:
    """One line per contender."""
    plan = run.plan
    draft = f" with draft {run.draft_name}" if run.draft_name else ""
    title = (
        f"{run.name}{draft}, {run.dtype}, temperature {plan.temperature:g}: {len(run.prompts)} prompts, "
        f"{plan.max_tokens} tokens each, median of {plan.repeats}"
    )
    table = Table(title, ("contender", *_COLUMNS, "as plain"))
    for entry in summary.contenders.values():
        over = entry.over_plain
        noise = "-" if entry.times_noise is None else f"{entry.times_noise:.1f}"
        medians = [f"{entry.over_generate.median:.2f}", with_interval(over), noise]
        cells = [
            f"{entry.tokens_per_second:.0f}",
            *medians,
            *(f"{v:.2f}" for v in (over.mean, over.minimum, over.together)),
        ]
        table.rows.append((entry.name, *cells, *_step_cells(entry), f"{entry.equal_to_plain}/{len(run.prompts)}"))
    table.notes += _notes(run, summary)
    return table


def with_interval(spread: Spread) -> str:
    """The median, and its interval in brackets where there is one."""
    return f"{spread.median:.2f}" + (f" ({spread.intervals.median})" if spread.intervals else "")


def _step_cells(entry: ContenderSummary) -> list[str]:
    steps = entry.steps
    if steps is None:
        return ["-"] * 4
    shares = [f"{steps.outside_share:.0%}", f"{steps.drafter_share:.0%}"]
    return [f"{steps.mean_acceptance_length:.2f}", f"{steps.step_seconds * 1e3:.2f}", *shares]


def _notes(run: DecodeRun, summary: Summary) -> list[str]:
    numerics = run.numerics
    about = run.about_prompts
    notes = [
        f"Prompts: {about['source']} ({about['format']}); {about['form']}",
        f"Numeric path: {numerics['path']} on {numerics['instruction_set']}, {numerics['threads']} threads",
        "Speed-ups: of whole calls, prefill and Paceline's text included; medians over prompts, then over "
        "plain Paceline also the mean, the least, and all prompts together",
        "Brackets: 95 % interval of the bootstrap over prompts",
        f"Collecting the report's measures: {run.collecting_seconds * 1e6:.1f} microseconds of a plain step",
        f"Noise: plain Paceline differs from itself by up to {summary.noise:.1%}; x noise: how many times that the "
        "median differs from 1",
        "As plain: prompts with the tokens of plain Paceline. transformers may differ: its arithmetic does, "
        "and above temperature 0 its random numbers",
    ]
    if about["num_too_long"]:
        notes.append(f"Left out: {about['num_too_long']} prompts that do not fit beside {run.plan.max_tokens} tokens")
    failures = sum(s.steps.num_drafter_failures for s in summary.contenders.values() if s.steps)
    return notes + ([f"Drafters failed {failures} times and were left out"] if failures else [])


def categories_table(run: DecodeRun, summary: Summary) -> Table:
    """The best contender by category."""
    best = summary.contenders[summary.best]
    table = Table(
        f"{best.name}, over plain, by category",
        ("category", "prompts", "median", "mean", "least", "together"),
    )
    for category, spread in best.by_category.items():
        count = sum(p.prompt.category == category for p in run.prompts)
        table.rows.append((category, str(count), *_spread_cells(spread)))
    return table


def _spread_cells(spread: Spread) -> list[str]:
    return [with_interval(spread), *(f"{value:.2f}" for value in (spread.mean, spread.minimum, spread.together))]


def as_json(run: DecodeRun, summary: Summary) -> dict[str, Any]:
    """Everything measured; outputs as digests of their token ids."""
    return {
        "model": run.name,
        "draft": run.draft_name,
        "dtype": run.dtype,
        "numerics": run.numerics,
        "plan": asdict(run.plan),
        "prompt_set": run.about_prompts,
        "contenders": [entry.as_dict() for entry in summary.contenders.values()],
        "best_fixed": summary.best,
        "noise": summary.noise,
        "bare_forward_share": summary.forward_share,
        "transformers_equal_to_plain": summary.contenders[GENERATE].equal_to_plain,
        "same_bytes": not run.mismatches(),
        "mismatches": [asdict(mismatch) for mismatch in run.mismatches()],
        "collecting_seconds": run.collecting_seconds,
        "prompts": [_prompt_as_json(prompt) for prompt in run.prompts],
    }


def _prompt_as_json(run: DecodePrompt) -> dict[str, Any]:
    return {
        "category": run.prompt.category,
        "num_prompt_tokens": len(run.ids),
        "plain_tokens": list(run.samples[PLAIN][0].tokens),
        "seconds": {name: [s.seconds for s in samples] for name, samples in run.samples.items()},
        "digests": {name: [_digest(s.tokens) for s in samples] for name, samples in run.samples.items()},
        "stats": {name: _stats(samples[0]) for name, samples in run.samples.items() if samples[0].stats},
        "bare_forward_seconds": run.bare_forwards,
    }


def _stats(sample: DecodeSample) -> dict[str, Any]:
    """Paceline's statistics without the numeric path, which is the same for all."""
    return {key: value for key, value in (sample.stats or {}).items() if key != "numerics"}


def _digest(tokens: tuple[int, ...]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]
