"""A guard with its terms swapped, or left out, fails the checks that the true one passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paceline.pacing import CostTable
from paceline.pacing.guard import Account
from paceline.pacing.plan import Plan
from pacing.simulated import Costs
from pacing.test_guard import check_slowdown, decoded, test_a_request_that_drafts_well_gains_from_its_first_tokens

Patch = pytest.MonkeyPatch


def never_slower() -> None:
    for name in ("wrong", "fickle", "lure"):
        for per_row in (0.03, 0.5):
            check_slowdown(Costs(per_row=per_row), [(name, 0.3, 1)], 0.02, 150)


def gains_at_once() -> None:
    test_a_request_that_drafts_well_gains_from_its_first_tokens()
    _, seconds, plain = decoded(Costs(per_row=0.3), [("right then wrong", 0.01, 1)], 0.02, 150)
    assert plain > 1.5 * seconds


def _balance(rule: Callable[[Account], float]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(Account, "balance", property(rule))


FAULTS: dict[str, tuple[Callable[[], None], Callable[[Patch], None]]] = {
    "what was spent left out": (never_slower, _balance(lambda a: 1.02 * a.plain + a.opening)),
    "plain and spent swapped": (never_slower, _balance(lambda a: 1.02 * a._booked + a.opening - a.plain)),
    "the opening balance given at every step": (
        never_slower,
        _balance(lambda a: max(1.02 * a.plain + a.opening - a._booked, a.opening)),
    ),
    "a slowdown ten times the allowed": (never_slower, _balance(lambda a: 1.2 * a.plain + a.opening - a._booked)),
    "no opening balance": (gains_at_once, _balance(lambda a: 1.02 * a.plain - a._booked)),
    "plain time forgotten": (gains_at_once, _balance(lambda a: a.opening - a._booked)),
    "drafters work for nothing": (
        never_slower,
        lambda patch: patch.setattr(Plan, "_spent", property(lambda plan: -1.0)),
    ),
    "rows that cost nothing": (
        never_slower,
        lambda patch: patch.setattr(CostTable, "forward", lambda table, rows, context: table.plain(1, context)),
    ),
    "plain steps dearer than they are": (
        never_slower,
        lambda patch: patch.setattr(CostTable, "plain", lambda table, num, context: 1.3 * table.forward(num, context)),
    ),
}


@pytest.mark.parametrize("check", [never_slower, gains_at_once])
def test_the_true_guard_passes(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("name", FAULTS)
def test_a_flawed_guard_is_caught(name: str, monkeypatch: Patch) -> None:
    check, plant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
