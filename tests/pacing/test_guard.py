"""The guard's bound, on a simulated clock, against drafters and machines that do their worst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from law.support import branching, target_of
from paceline.engine.request import Request
from paceline.pacing.guard import Account
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
        TimedDrafter(name, SCRIPTS[name](place.target), place.clock, share * plain / stages, stages)
        for name, share, stages in specs
    ]


class Auditor:
    """Keeps its own books of a request, by the clock alone, and compares them with the pacer's after every step."""

    def __init__(self, place: World, requests: list[Request]) -> None:
        self.place, self.requests = place, requests
        self.elapsed = {request.id: 0.0 for request in requests}
        self.worst = 0.0

    def audit(self, seconds: float) -> None:
        for request in self.requests:
            if request.finish_reason is None and request.num_output_tokens:
                self.elapsed[request.id] += seconds
                account = self.place.pacer.account(request)
                assert account.elapsed == pytest.approx(self.elapsed[request.id], abs=1e-5 * request.stats.num_steps)
                assert account.elapsed <= account.bound + 1e-9
                self.worst = max(self.worst, account.elapsed - account.bound)


@example(Costs(per_row=0.0, per_position=0.01), [("branching", 0.0, 1), ("fickle", 0.0, 1)], 0.0, 2, 0)
@example(Costs(per_row=0.0, jump=3.0, jump_at=3), [("branching", 0.02, 2)], 0.0, 2, 1)
@example(Costs(per_row=0.03), [("branching", 0.0, 1), ("fickle", 0.0, 1)], 0.0, 2, 0)
@settings(max_examples=40, deadline=None)
@given(machines, drafters, st.sampled_from([0.0, 0.02, 0.2]), st.integers(1, 3), st.integers(0, 99))
def test_the_bound_holds_after_every_step(costs, specs, max_slowdown, num_requests, seed) -> None:
    place = world(target_of(VOCAB, seed).logits, VOCAB, costs, max_slowdown)
    made = timed(place, specs)
    requests = [request_of(VOCAB, 37 + 11 * i, made, seed + i, temperature=i % 2) for i in range(num_requests)]
    auditor = Auditor(place, requests)
    place.run(requests, auditor.audit)
    for request in requests:
        pacing = request.stats.pacing
        assert pacing["elapsed_seconds"] <= pacing["bound_seconds"] + 1e-9


def decoded(costs: Costs, specs, max_slowdown: float, num_tokens: int, seed: int = 0) -> tuple[Request, float, float]:
    """A request decoded, the seconds it took by the clock, and those that plain decoding would have taken."""
    place = world(target_of(VOCAB, seed).logits, VOCAB, costs, max_slowdown)
    request = request_of(VOCAB, num_tokens, timed(place, specs), seed)
    place.run([request])
    return request, request.stats.decode_seconds, plain_seconds(costs, request)


def check_slowdown(costs: Costs, specs, max_slowdown: float, num_tokens: int, seed: int = 0) -> None:
    """Without noise, and for drafters that cost no more than is guessed at first, estimates are true: no cost error."""
    request, seconds, plain = decoded(costs, specs, max_slowdown, num_tokens, seed)
    ticks = 1e-5 * request.stats.num_steps
    assert seconds <= (1 + max_slowdown) * plain + 2 * costs.of(1, request.num_prompt_tokens) + ticks


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    st.lists(
        st.tuples(st.sampled_from(sorted(SCRIPTS)), st.sampled_from([0.0, 0.02, 0.5]), st.just(1)),
        min_size=1,
        max_size=3,
        unique_by=lambda spec: spec[0],
    ),
    st.sampled_from([0.0, 0.02, 0.2]),
    st.integers(0, 99),
)
def test_decoding_is_never_slower_than_the_clock_of_plain_decoding_allows(per_row, specs, max_slowdown, seed) -> None:
    check_slowdown(Costs(per_row=per_row), specs, max_slowdown, 83, seed)


@pytest.mark.parametrize("name", ["wrong", "fickle", "lure", "right then wrong"])
@pytest.mark.parametrize("per_row", [0.03, 0.5])
def test_long_text_on_which_nothing_is_accepted_costs_no_more_than_its_share(name: str, per_row: float) -> None:
    request, seconds, plain = decoded(Costs(per_row=per_row), [(name, 0.1, 1)], 0.02, 600)
    assert request.stats.num_draft_tokens > 0
    assert seconds <= 1.02 * plain + 2 * Costs().base + 1e-5 * request.stats.num_steps


def test_a_request_that_drafts_well_gains_from_its_first_tokens() -> None:
    """What the opening balance is for: without it, the first 16 tokens would be decoded plainly."""
    request, seconds, plain = decoded(Costs(per_row=0.03), [("perfect", 0.01, 1)], 0.02, 17)
    assert plain / seconds > 4
    assert request.stats.num_steps <= 4


def test_an_account_balances() -> None:
    account = Account(0.1, 3.0)
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
