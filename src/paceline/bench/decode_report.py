"""A decode measurement as tables and as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from paceline.bench.contestants import GENERATE, PLAIN
from paceline.bench.decode import DecodeRun, PromptRun, Sample
from paceline.bench.summary import SettingSummary, Spread, Summary, decode_reach
from paceline.bench.tables import Table

_COLUMNS = (
    "tokens/s",
    "x generate",
    "x plain",
    "mean",
    "least",
    "together",
    "τ",
    "ms/step",
    "not forward",
    "drafters",
)


def settings_table(run: DecodeRun, summary: Summary) -> Table:
    """One line per contestant."""
    plan = run.plan
    draft = f" with draft {run.draft_name}" if run.draft_name else ""
    title = (
        f"{run.name}{draft}, {run.dtype}, temperature {plan.temperature:g}: {len(run.prompts)} prompts, "
        f"{plan.max_tokens} tokens each, median of {plan.repeats}"
    )
    table = Table(title, ("setting", *_COLUMNS, "as plain"))
    for entry in summary.settings.values():
        over = entry.over_plain
        ratios = (entry.over_generate.median, over.median, over.mean, over.minimum, over.together)
        cells = [f"{entry.tokens_per_second:.0f}", *(f"{value:.2f}" for value in ratios)]
        table.rows.append((entry.name, *cells, *_step_cells(entry), f"{entry.equal_to_plain}/{len(run.prompts)}"))
    table.notes += _notes(run, summary)
    return table


def _step_cells(entry: SettingSummary) -> list[str]:
    steps = entry.steps
    if steps is None:
        return ["-"] * 4
    shares = [f"{steps.outside_share:.0%}", f"{steps.drafter_share:.0%}"]
    return [f"{steps.mean_acceptance_length:.2f}", f"{steps.step_seconds * 1e3:.2f}", *shares]


def _notes(run: DecodeRun, summary: Summary) -> list[str]:
    numerics = run.numerics
    notes = [
        f"Numeric path: {numerics['path']} on {numerics['instruction_set']}, {numerics['threads']} threads",
        "Speed-ups: of whole calls, prefill and Paceline's text included; medians over prompts, then over "
        "plain Paceline also the mean, the least, and all prompts together",
        f"Noise: plain Paceline against itself differs by {summary.noise:.1%}",
        "As plain: prompts with the tokens of plain Paceline. transformers may differ: its arithmetic does, "
        "and above temperature 0 its random numbers",
    ]
    failures = sum(s.steps.num_drafter_failures for s in summary.settings.values() if s.steps)
    return notes + ([f"Drafters failed {failures} times and were left out"] if failures else [])


def categories_table(run: DecodeRun, summary: Summary) -> Table:
    """The best setting by category."""
    best = summary.settings[summary.best]
    table = Table(
        f"{best.name}, over plain, by category",
        ("category", "prompts", "median", "mean", "least", "together"),
    )
    for category, spread in best.by_category.items():
        count = sum(p.prompt.category == category for p in run.prompts)
        table.rows.append((category, str(count), *_spread_cells(spread)))
    return table


def _spread_cells(spread: Spread) -> list[str]:
    return [f"{value:.2f}" for value in (spread.median, spread.mean, spread.minimum, spread.together)]


def as_json(run: DecodeRun, summary: Summary) -> dict[str, Any]:
    """Everything measured; outputs as digests of their token ids."""
    return {
        "model": run.name,
        "draft": run.draft_name,
        "dtype": run.dtype,
        "numerics": run.numerics,
        "plan": asdict(run.plan),
        "settings": [entry.as_dict() for entry in summary.settings.values()],
        "best_fixed_setting": summary.best,
        "noise": summary.noise,
        "bare_forward_share": summary.forward_share,
        "transformers_equal_to_plain": summary.settings[GENERATE].equal_to_plain,
        "same_bytes": not run.mismatches(),
        "mismatches": [asdict(mismatch) for mismatch in run.mismatches()],
        "reach": [line.as_dict() for line in decode_reach(run, summary)],
        "prompts": [_prompt_as_json(prompt) for prompt in run.prompts],
    }


def _prompt_as_json(run: PromptRun) -> dict[str, Any]:
    return {
        "category": run.prompt.category,
        "num_prompt_tokens": len(run.ids),
        "plain_tokens": list(run.samples[PLAIN][0].tokens),
        "seconds": {name: [s.seconds for s in samples] for name, samples in run.samples.items()},
        "digests": {name: [_digest(s.tokens) for s in samples] for name, samples in run.samples.items()},
        "stats": {name: _stats(samples[0]) for name, samples in run.samples.items() if samples[0].stats},
        "bare_forward_seconds": run.bare_forwards,
    }


def _stats(sample: Sample) -> dict[str, Any]:
    """Paceline's statistics without the numeric path, which is the same for all."""
    return {key: value for key, value in (sample.stats or {}).items() if key != "numerics"}


def _digest(tokens: tuple[int, ...]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:16]
