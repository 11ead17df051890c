"""docs/metrics.md defines every public figure, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from paceline import LLM
from paceline.bench.summary import ContenderSummary, Spread, StepCounts
from paceline.engine.stats import DrafterStats, Stats
from paceline.testing import ScriptedDrafter
from paceline.text.prompt_formats import FORMATS

PAGE = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
REQUEST, DRAFTER, PACER, CONTENDERS = "## Statistics of", "### Of each drafter", "### Of the pacer", "Contenders in the"


def defined(title: str) -> list[str]:
    """The keys in the first column of the table after a title."""
    table = PAGE.split(f"\n{title}", 1)[1].split("\n|", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def check(title: str, keys: set[str]) -> None:
    listed = defined(title)
    assert len(listed) == len(set(listed))
    assert set(listed) == keys


@pytest.fixture(scope="module")
def stats(bundled: LLM) -> dict:
    return bundled.generate(
        "One, two, one, two, one, two,", max_tokens=12, drafters=[ScriptedDrafter()]
    ).stats.as_dict()


def test_every_statistic_of_a_request_is_defined(stats: dict) -> None:
    check(REQUEST, set(stats))
    assert set(Stats().as_dict()) == set(stats)


def test_every_statistic_of_a_drafter_is_defined(stats: dict) -> None:
    check(DRAFTER, set(stats["drafters"][ScriptedDrafter.name]))
    assert set(stats["drafters"][ScriptedDrafter.name]) == {field.name for field in fields(DrafterStats)} | {
        "saved_seconds"
    }


def test_every_entry_of_the_pacers_account_is_defined(stats: dict) -> None:
    check(PACER, set(stats["pacing"]))


def test_every_reason_to_stop_drafting_is_named() -> None:
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "src/paceline/pacing").glob("*.py"))
    reasons = {
        r for r in ("idle", "no drafts", "rows would not pay", "guard", "all drafts taken") if f'"{r}"' in source
    }
    assert set(re.findall(r"`([a-z ]+)`", PAGE.split("| `stops` |", 1)[1].splitlines()[0])) == reasons


def test_memory_is_defined(stats: dict) -> None:
    line = PAGE.split("| `memory` |", 1)[1].splitlines()[0]
    assert set(re.findall(r"`(\w+)`", line)) == set(stats["memory"])


def test_every_figure_of_a_contender_is_defined() -> None:
    check(CONTENDERS, {field.name for field in fields(ContenderSummary)})
    line = PAGE.split("| `steps` |", 1)[1].splitlines()[0]
    rates = {"mean_acceptance_length", "draft_acceptance_rate", "acceptance_rate"}  # τ and both rates
    assert set(re.findall(r"`(\w+)`", line)) == {field.name for field in fields(StepCounts)} - rates
    speed_up = PAGE.split("**Speed-up**", 1)[1].split("\n- ", 1)[0]
    assert {field.name for field in fields(Spread)} - {"intervals"} <= set(re.findall(r"`(\w+)`", speed_up))


def test_every_form_of_prompt_sets_is_listed_with_its_keys() -> None:
    table = PAGE.split("| form |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    listed = {row.split("|")[1].strip(): set(re.findall(r"`(\w+)`", row.split("|")[2])) for row in table}
    for form in FORMATS:
        assert form.keys == listed.pop(form.name.replace(" or ", ", ")), form.name
    assert listed.keys() == {"plain text"}
