"""A guard with its terms swapped, or left out, fails the checks that the true one passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from law.support import target_of
from paceline.engine.request import Request
from paceline.pacing import CostTable
from paceline.pacing.guard import INVESTMENT, Account, Guard
from paceline.pacing.plan import Plan
from pacing.simulated import Costs, request_of, world
from pacing.test_guard import (
    VOCAB,
    Auditor,
    check_slowdown,
    decoded,
    test_a_request_that_drafts_well_gains_from_its_first_tokens,
    timed,
)
from pacing.test_guard import (
    test_a_step_of_a_batch_earns_for_the_engine_what_its_requests_earn_on_average as earns_on_average,
)

Patch = pytest.MonkeyPatch


def never_slower() -> None:
    for name in ("lure", "fickle", "wrong"):  # what catches most faults comes first
        for per_row in (0.5, 0.03):
            check_slowdown(Costs(per_row=per_row), [(name, 0.3, 1)], 0.0, 41, 20)
            check_slowdown(Costs(per_row=per_row), [(name, 0.3, 1)], 0.02, 150, 1)


def gains_at_once() -> None:
    test_a_request_that_drafts_well_gains_from_its_first_tokens()
    _, seconds, plain = decoded(Costs(per_row=0.3), [("right then wrong", 0.01, 1)], 0.02, 150)
    assert plain > 1.5 * seconds


def a_neighbour_is_spared() -> None:
    """A request that has spent its balance is not made to pay for those that have not."""
    place = world(target_of(VOCAB).logits, VOCAB, Costs(per_row=0.5), max_slowdown=0.0)
    bad, auditor = timed(place, [("fickle", 0.5, 1)]), Auditor(place)
    requests = [request_of(VOCAB, 31 if i else 400, bad, i) for i in range(9)]
    place.engine.pacer.attach(bad[0], place.target)
    for request in requests:  # one more joins the first whenever the last has ended
        place.engine.add(request)
        while request.num_output_tokens < 30:
            started = place.clock.now
            place.engine.step()
            auditor.audit(requests, place.clock.now - started)


def _balance(rule: Callable[[Account], float]) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(Account, "balance", property(rule))


def _allowance(rule: Callable[[Guard, list[float]], float]) -> Callable[[Patch], None]:
    """What a step may lose, by the guard and the balances of the step's requests."""

    def allowance(guard: Guard, requests: Sequence[Request]) -> float:
        return rule(guard, [guard.account(request).balance for request in requests])

    return lambda patch: patch.setattr(Guard, "allowance", allowance)


def _reopened(patch: Patch) -> None:
    """The opening investment is made anew for each request."""
    start = Guard.start

    def reopened(guard: Guard, request: Request, prefill: float, plain_step: float) -> None:
        guard.engine.opening += INVESTMENT * plain_step
        start(guard, request, prefill, plain_step)

    patch.setattr(Guard, "start", reopened)


def _generously(guard: Guard, requests, counts, plain: float, elapsed: float, estimate: float) -> None:
    for request, count in zip(requests, counts, strict=True):
        guard.account(request).book(elapsed, estimate, count * plain)
    guard.engine.book(elapsed, estimate, sum(counts) * plain)


def _for_nothing(plan: Plan, price: float, expected_tokens: float, limit: float) -> bool:
    return True


FAULTS: dict[str, tuple[Callable[[], None], Callable[[Patch], None]]] = {
    "what was spent left out": (never_slower, _balance(lambda a: 1.02 * a.plain + a.opening)),
    "plain and spent swapped": (never_slower, _balance(lambda a: 1.02 * a._booked + a.opening - a.plain)),
    "the opening balance given at every step": (
        never_slower,
        _balance(lambda a: max(1.02 * a.plain + a.opening - a._booked, a.opening)),
    ),
    "a slowdown ten times the allowed": (never_slower, _balance(lambda a: 1.2 * a.plain + a.opening - a._booked)),
    "the engine's account alone": (never_slower, _allowance(lambda guard, balances: guard.engine.balance)),
    "the requests' accounts alone": (never_slower, _allowance(lambda guard, balances: min(balances))),
    "whichever holds more": (never_slower, _allowance(lambda guard, balances: max(guard.engine.balance, *balances))),
    "the richest of a batch pays": (
        a_neighbour_is_spared,
        _allowance(lambda guard, balances: min(guard.engine.balance, max(balances))),
    ),
    "an investment for each request": (never_slower, _reopened),
    "a batch earns for the engine what it earns for each": (
        earns_on_average,
        lambda patch: patch.setattr(Guard, "book_drafted", _generously),
    ),
    "no grace": (gains_at_once, lambda patch: patch.setattr("paceline.pacing.guard.GRACE", 0.0)),
    "no investment": (gains_at_once, lambda patch: patch.setattr("paceline.pacing.guard.INVESTMENT", 0.0)),
    "plain time forgotten": (gains_at_once, _balance(lambda a: a.opening - a._booked)),
    "drafters work for nothing": (never_slower, lambda patch: patch.setattr(Plan, "_spend", _for_nothing)),
    "rows that cost nothing": (
        never_slower,
        lambda patch: patch.setattr(CostTable, "forward", lambda table, rows, context: table.plain(1, context)),
    ),
    "plain steps dearer than they are": (
        never_slower,
        lambda patch: patch.setattr(CostTable, "plain", lambda table, num, context: 1.3 * table.forward(num, context)),
    ),
}


@pytest.mark.parametrize("check", [never_slower, gains_at_once, a_neighbour_is_spared, earns_on_average])
def test_the_true_guard_passes(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("name", FAULTS)
def test_a_flawed_guard_is_caught(name: str, monkeypatch: Patch) -> None:
    check, plant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
