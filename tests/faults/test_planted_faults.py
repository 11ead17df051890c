"""Every fault planted here must be noticed by the checks that it names."""

from __future__ import annotations

import pytest

import faults.engine_faults
import faults.law_faults  # noqa: F401  # importing the two fills the table
from faults.checks import CHECKS, Check
from faults.registry import FAULTS, HARMLESS

PAIRS = [(name, check) for name, fault in FAULTS.items() for check in fault.caught_by]


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_passes_without_a_fault(name: str) -> None:
    CHECKS[name]()


@pytest.mark.parametrize(("name", "check"), PAIRS, ids=[f"{name}: {check.__name__}" for name, check in PAIRS])
def test_a_fault_is_caught(name: str, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name].plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("name", HARMLESS)
def test_what_plants_a_fault_is_not_one_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    HARMLESS[name](monkeypatch)
    for check in CHECKS.values():
        check()


def test_every_check_catches_some_fault() -> None:
    assert {check for _, check in PAIRS} == set(CHECKS.values())
