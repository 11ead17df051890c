"""The card of a drafter: what it was trained for, on what, and how far it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.training.data import Document
from paceline.training.evaluate import DEPTH, distinct


def card(figures: Mapping[str, Any], held_out: Sequence[Document]) -> str:
    """A README in Markdown, of the figures that stand beside it in `figures.json`."""
    recipe = ", ".join(f"{name} {value}" for name, value in figures["recipe"].items())
    rows = [_row(name, tally, figures["walked"][name]) for name, tally in figures["scores"].items()]
    return "\n".join(
        [
            f"# A drafter for {figures['model']}\n",
            f"Trained by `paceline train --kind {figures['kind']}`: {figures['steps']:,} steps in "
            f"{figures['seconds'] / 60:.1f} minutes on {figures['tokens']:,} tokens that the target wrote itself. "
            "It changes the speed of decoding, and no byte.\n",
            f"Recipe: {recipe}.\n",
            f"## Tokens a step, chain of {DEPTH}, held-out prompts: {figures['walked']['all']:.2f}\n",
            "Teacher-forced on what the target wrote: expected, not decoded. The last columns are by position.\n",
            "| text | tokens a step | mean over places | ± | accepted | overlap |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Of the held-out outputs {distinct(held_out):.0%} of the 4-grams are different; text that repeats "
            "itself flatters a drafter.",
            "",
        ]
    )


def _row(name: str, tally: Mapping[str, Any], tau: float) -> str:
    accepted, shared = (
        " ".join(f"{value:.2f}" for value in tally[key]) for key in ("accepted_by_position", "overlap_by_position")
    )
    return f"| {name} | {tau:.2f} | {tally['tau']:.2f} | {tally['error']:.2f} | {accepted} | {shared} |"
