"""Every fault planted here must be noticed by the checks that it names, and by no accident."""

from __future__ import annotations

import pytest

from faults.checks import CHECKS
from faults.plants import FAULTS


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_passes_without_a_fault(name: str) -> None:
    CHECKS[name]()


@pytest.mark.parametrize(
    ("name", "check"), [(name, check) for name in FAULTS for check in FAULTS[name].caught_by]
)
def test_a_fault_is_caught(name: str, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAULTS[name].plant(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[check]()


def test_every_check_catches_some_fault() -> None:
    assert {check for fault in FAULTS.values() for check in fault.caught_by} == CHECKS.keys()
