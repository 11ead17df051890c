"""`paceline generate --explain`: what each drafter brought and cost, and why the pacer stopped where it did."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from paceline.engine.stats import Stats
from paceline.pacing.wording import STOPS


def show_explanation(stats: Stats, console: Console) -> None:
    """Print what `Output.stats` says of drafters and pacing."""
    console.print(_drafters(stats))
    unasked = [name for name, drafter in stats.drafters.items() if not drafter.num_proposals]
    if unasked:
        console.print(f"never asked: {', '.join(unasked)}")
    if stats.pacing:
        console.print(_stops(stats.pacing["stops"]))
        console.print(_account(stats.pacing))


def _drafters(stats: Stats) -> Table:
    table = Table("drafter", box=None, pad_edge=False)
    for column in ("asked", "drafts given rows", "accepted", "ms spent", "ms saved"):
        table.add_column(column, justify="right")
    asked = {name: drafter for name, drafter in stats.drafters.items() if drafter.num_proposals}
    for name, drafter in asked.items():
        counts = (drafter.num_proposals, drafter.num_draft_tokens, drafter.num_accepted_draft_tokens)
        times = (f"{seconds * 1e3:.1f}" for seconds in (drafter.seconds, drafter.saved_seconds))
        table.add_row(name, *map(str, counts), *times)
    table.add_section()
    sums = (stats.num_steps, stats.num_draft_tokens, stats.num_accepted_draft_tokens)
    table.add_row("all steps", *map(str, sums), "", "")
    return table


def _stops(stops: dict[str, int]) -> Table:
    table = Table("steps", "why drafting went no further", box=None, pad_edge=False)
    for name, count in sorted(stops.items(), key=lambda item: -item[1]):
        table.add_row(str(count), STOPS[name])
    return table


def _account(pacing: dict[str, Any]) -> str:
    elapsed, plain, bound = (pacing[f"{key}_seconds"] * 1e3 for key in ("elapsed", "plain", "bound"))
    return (
        f"decoding took {elapsed:.1f} ms; plain decoding would have taken at least {plain:.1f} ms, "
        f"and the guard allowed {bound:.1f} ms"
    )
