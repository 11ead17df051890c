"""What a pacer did, in plain English, for people who wonder why it drafted or did not."""

from __future__ import annotations

from collections.abc import Mapping

from paceline.engine.stats import Stats

# Why drafting went no further in a step.
STOPS: Mapping[str, str] = {
    "all drafts taken": "every draft got a row",
    "rows would not pay": "a further row would have cost more than it promised to save",
    "no drafts": "drafters were asked, and had nothing to propose",
    "idle": "no drafter was worth asking, or affordable",
    "guard": "the balance did not cover more: only what drafting has saved may be spent",
}


def sentence(stats: Stats, may_draft: bool) -> str:
    """One sentence on who drafted in a request that has ended, or why nobody did."""
    if not may_draft:
        return "Nobody was allowed to draft, so every token took a step of its own."
    stops: dict[str, int] = stats.pacing.get("stops", {})
    idle = {name: count for name, count in stops.items() if name != "all drafts taken"}
    why = f": {STOPS[max(idle, key=lambda name: idle[name])]}" if idle else ""
    if not stats.num_spec_steps:
        return f"The pacer did not draft{why}."
    drafted = f"The pacer drafted in {stats.num_spec_steps} of {stats.num_steps} steps, {_outcome(stats)}"
    if 2 * stats.num_spec_steps >= stats.num_steps:
        return f"{drafted}."
    return f"{drafted}; mostly it did not{why}."


def _outcome(stats: Stats) -> str:
    if not stats.pacing:  # a pacer that keeps no accounts
        return f"and {stats.num_accepted_draft_tokens} of {stats.num_draft_tokens} drafts were right"
    saved = sum(drafter.saved_seconds for drafter in stats.drafters.values()) * 1e3
    if not stats.num_accepted_draft_tokens:
        return "and no draft was right"
    return f"which saved {_time(saved)}" if saved >= 0 else f"which cost {_time(-saved)} more than it saved"


def _time(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 1000.0 else f"{ms / 1e3:.2f} s"
