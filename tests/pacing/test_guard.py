"""The guard's bound, on a simulated clock, against drafters and machines that do their worst."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from law.support import branching, target_of
from paceline.engine.request import Request
from paceline.pacing.guard import Account, Guard, cap_of
from paceline.testing import ScriptedDrafter
from pacing.simulated import Costs, TimedDrafter, World, plain_seconds, request_of, world

VOCAB = 6


def lure(target, right: int):
    """Right for the first tokens of an output, wrong from then on: trust is won and abused."""
    good, bad = ScriptedDrafter.perfect(target), ScriptedDrafter.adversarial(target)
    return lambda request, budget: (good if request.num_output_tokens < right else bad)._script(request, budget)


def fickle(target):
    """Right and wrong by turns of a few tokens."""
    good, bad = ScriptedDrafter.perfect(target), ScriptedDrafter.adversarial(target)
    return lambda request, budget: (good if request.num_output_tokens // 5 % 2 else bad)._script(request, budget)


SCRIPTS = {
    "perfect": lambda target: ScriptedDrafter.perfect(target)._script,
    "wrong": lambda target: ScriptedDrafter.adversarial(target)._script,
    "right then wrong": lambda target: ScriptedDrafter.adversarial(target, right=2)._script,
    "branching": lambda target: branching(target)._script,
    "lure": lambda target: lure(target, 13),
    "fickle": fickle,
    "silent": lambda target: lambda request, budget: (),
}

drafters = st.lists(
    st.tuples(st.sampled_from(sorted(SCRIPTS)), st.sampled_from([0.0, 0.02, 0.3, 0.5, 4.0]), st.integers(1, 5)),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec[0],
)
machines = st.builds(
    Costs,
    per_row=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    per_position=st.sampled_from([0.0, 0.01]),
    noise=st.sampled_from([0.0, 0.0, 0.3]),
    jump=st.sampled_from([1.0, 3.0, 0.3]),
    jump_at=st.integers(3, 40),
    rng=st.integers(0, 99).map(np.random.default_rng),
)


def timed(place: World, specs) -> list[TimedDrafter]:
    plain = place.target.costs.base
    return [
        TimedDrafter(name, SCRIPTS[name](place.target), place.clock, share * plain / levels, levels)
        for name, share, levels in specs
    ]


class Auditor:
    """Keeps its own books by the clock alone, of each request and of all together, and compares them at every step."""

    def __init__(self, place: World) -> None:
        self.place = place
        self.elapsed: dict[int, float] = {}  # by request id
        self.total, self.num_steps = 0.0, 0

    def audit(self, requests: Sequence[Request], seconds: float) -> None:
        guard, self.num_steps = self.place.pacer.guard, self.num_steps + 1
        self.total += seconds
        assert guard.engine.elapsed == pytest.approx(self.total, abs=1e-5 * self.num_steps)
        assert guard.engine.elapsed <= guard.engine.bound + 1e-9
        for request in requests:
            if request.finish_reason is None and request.num_output_tokens:
                self.elapsed[request.id] = self.elapsed.get(request.id, 0.0) + seconds
                account = guard.account(request)
                ticks = 1e-5 * request.stats.num_steps
                assert account.elapsed == pytest.approx(self.elapsed[request.id], abs=ticks)
                assert account.elapsed <= account.bound + 1e-9


batches = st.lists(st.integers(1, 3), min_size=1, max_size=4)  # how many requests run together, batch after batch


@example(Costs(per_row=0.0, per_position=0.01), [("branching", 0.0, 1), ("fickle", 0.0, 1)], 0.0, [2], 0)
@example(Costs(per_row=0.0, jump=3.0, jump_at=3), [("branching", 0.02, 2)], 0.0, [2], 1)
@example(Costs(per_row=0.03), [("branching", 0.0, 1), ("fickle", 0.0, 1)], 0.0, [2], 0)
@settings(max_examples=25, deadline=None)
@given(machines, drafters, st.sampled_from([0.0, 0.02, 0.2]), batches, st.integers(0, 99))
def test_both_bounds_hold_after_every_step(costs, specs, max_slowdown, sizes, seed) -> None:
    place = world(target_of(VOCAB, seed).logits, VOCAB, costs, max_slowdown)
    made, auditor = timed(place, specs), Auditor(place)
    for number, size in enumerate(sizes):
        requests = [request_of(VOCAB, 23 + 11 * i, made, seed + 7 * number + i, i % 2) for i in range(size)]
        place.run(requests, partial(auditor.audit, requests))
        for request in requests:
            pacing = request.stats.pacing
            assert pacing["elapsed_seconds"] <= pacing["bound_seconds"] + 1e-9


def decoded_in_a_row(
    costs: Costs, specs, max_slowdown: float, num_tokens: int, num_requests: int, seed: int = 0
) -> list[tuple[Request, float, float]]:
    """Requests of one process, decoded one after the other.

    With the seconds that each took by the clock, and those that plain decoding would have taken.
    """
    place = world(target_of(VOCAB, seed).logits, VOCAB, costs, max_slowdown)
    made = timed(place, specs)
    requests = [request_of(VOCAB, num_tokens, made, seed + i) for i in range(num_requests)]
    for request in requests:
        place.run([request])
    return [(request, request.stats.decode_seconds, plain_seconds(costs, request)) for request in requests]


def decoded(costs: Costs, specs, max_slowdown: float, num_tokens: int, seed: int = 0) -> tuple[Request, float, float]:
    return decoded_in_a_row(costs, specs, max_slowdown, num_tokens, 1, seed)[0]


def check_slowdown(costs: Costs, specs, max_slowdown: float, num_tokens: int, num_requests: int, seed: int = 0) -> None:
    """Without noise, and for drafters that cost no more than is guessed at first, estimates are true: no cost error."""
    runs = decoded_in_a_row(costs, specs, max_slowdown, num_tokens, num_requests, seed)
    step = costs.of(1, runs[0][0].num_prompt_tokens)
    for request, seconds, plain in runs:
        assert seconds <= (1 + cap_of(max_slowdown)) * plain + 4 * step + 1e-5 * request.stats.num_steps
    ticks = 1e-5 * sum(request.stats.num_steps for request, _, _ in runs)
    assert sum(run[1] for run in runs) <= (1 + max_slowdown) * sum(run[2] for run in runs) + 32 * step + ticks


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    st.lists(
        st.tuples(st.sampled_from(sorted(SCRIPTS)), st.sampled_from([0.0, 0.02, 0.5]), st.just(1)),
        min_size=1,
        max_size=3,
        unique_by=lambda spec: spec[0],
    ),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.integers(1, 7),
    st.integers(0, 99),
)
def test_decoding_is_never_slower_than_the_clock_of_plain_decoding_allows(
    per_row, specs, max_slowdown, num_requests, seed
) -> None:
    check_slowdown(Costs(per_row=per_row), specs, max_slowdown, 53, num_requests, seed)


@pytest.mark.parametrize("name", ["wrong", "fickle", "lure", "right then wrong"])
@pytest.mark.parametrize("per_row", [0.03, 0.5])
def test_texts_on_which_nothing_is_accepted_cost_no_more_than_their_share(name: str, per_row: float) -> None:
    check_slowdown(Costs(per_row=per_row), [(name, 0.1, 1)], 0.02, 211, 5)


def test_what_one_request_has_saved_is_spent_on_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's account is one for all: with nothing in it, not even an investment, nobody is asked."""
    monkeypatch.setattr("paceline.pacing.guard.INVESTMENT", 0.0)
    asked = []
    for is_rich in (False, True):
        place = world(target_of(VOCAB).logits, VOCAB, Costs(per_row=0.03), max_slowdown=0.0)
        if is_rich:
            place.pacer.guard.engine.opening = place.target.costs.base  # so that the first is asked at all
            place.run([request_of(VOCAB, 97, timed(place, [("perfect", 0.01, 1)]))])
            assert place.pacer.guard.engine.balance > 50 * place.target.costs.base
        request = request_of(VOCAB, 97, timed(place, [("silent", 0.5, 1)]))
        place.run([request])
        asked.append(request.stats.drafters["silent"].num_proposals)
    assert asked[0] == 0 < asked[1]


def test_a_step_of_a_batch_earns_for_the_engine_what_its_requests_earn_on_average() -> None:
    guard = Guard(0.02, 1.0)
    requests = [request_of(VOCAB, 9, seed=i) for i in range(2)]
    for request in requests:
        guard.start(request, 0.5, 1.0)
    guard.book_drafted(requests, [3, 1], plain=2.0, elapsed=3.5, estimate=3.0)
    assert [guard.account(request).plain for request in requests] == [0.5 + 6.0, 0.5 + 2.0]
    assert (guard.engine.plain, guard.engine.elapsed, guard.engine.estimated) == (1.0 + 4.0, 1.0 + 3.5, 1.0 + 3.0)
    guard.book_plain(requests, undrafted=1.5, elapsed=1.75, estimate=1.5, idle_overhead=0.25)
    assert (guard.engine.plain, guard.engine.elapsed, guard.engine.estimated) == (6.5, 6.25, 5.5)
    assert guard.allowance(requests) == guard.account(requests[1]).balance < guard.engine.balance


def test_the_opening_investment_is_made_once_and_not_for_each_request() -> None:
    """With nothing to earn it back, it is spent by the first requests; later ones decode plainly."""
    costs = Costs(per_row=0.5)
    runs = decoded_in_a_row(costs, [("wrong", 0.4, 1)], 0.0, 31, 30)
    lost = [seconds - plain for _, seconds, plain in runs]
    assert sum(lost) <= 32 * costs.base + 1e-5 * sum(run[0].stats.num_steps for run in runs)
    assert sum(lost[:15]) > 2 * sum(lost[15:])


def test_a_request_that_drafts_well_gains_from_its_first_tokens() -> None:
    """What the grace is for: without it, the first 16 tokens would be decoded plainly."""
    request, seconds, plain = decoded(Costs(per_row=0.03), [("perfect", 0.01, 1)], 0.02, 17)
    assert plain / seconds > 4
    assert request.stats.num_steps <= 4


def test_an_account_balances() -> None:
    account = Account(0.1, 6.0)
    assert (account.balance, account.bound) == (6.0, 6.0)
    account.book(elapsed=5.0, estimate=4.0, plain=10.0, idle_overhead=0.5)
    assert account.balance == pytest.approx(1.1 * 10 + 6 - 4.5)
    assert account.cost_error == 1.0
    assert account.bound == pytest.approx(1.1 * 10 + 6 + 1)


def test_neighbours_do_not_slow_a_request_down_by_more_than_its_balance() -> None:
    place = world(target_of(VOCAB).logits, VOCAB, Costs(per_row=0.2))
    bad = timed(place, [("wrong", 0.2, 1)])
    good = [ScriptedDrafter.perfect(place.target)]
    requests = [request_of(VOCAB, 90, bad if i else good, i) for i in range(3)]
    place.run(requests)
    for request in requests:
        pacing = request.stats.pacing
        assert pacing["elapsed_seconds"] <= pacing["bound_seconds"] + 1e-9
