"""A change of topic half-way: drafters that were right become wrong and others right, and the pacer notices."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from law.support import target_of
from paceline.engine.request import Request
from paceline.pacing.success_counts import SuccessCounts
from paceline.testing import ScriptedDrafter
from pacing.simulated import Costs, TimedDrafter, World, request_of, world

VOCAB = 11
SWITCH, LENGTH = 150, 300  # output tokens
RECOVERED = 64  # tokens after the switch, from which the rate must be back
SHARE = 0.8  # of the rate before the switch


def expert(place: World, first: int, last: int) -> TimedDrafter:
    """Right about output tokens from `first` to `last`, wrong about all others."""
    good, bad = ScriptedDrafter.perfect(place.target), ScriptedDrafter.adversarial(place.target)

    def script(request: Request, budget: int):
        knows = first <= request.num_output_tokens < last
        tokens = (good if knows else bad)._script(request, budget)
        return tokens[: last - request.num_output_tokens] if knows else tokens

    return TimedDrafter(f"from {first}", script, place.clock, 0.05 * place.target.costs.base)


@dataclass
class Run:
    """Tokens per step of a stretch of one output, and what was estimated on the way."""

    request: Request
    tokens: list[int] = field(default_factory=list)  # output tokens after each step

    def rate(self, first: int, last: int) -> float:
        inside = [n for n in self.tokens if first < n <= last]
        return (inside[-1] - inside[0]) / (len(inside) - 1)


def decode(place: World, monkeypatch: pytest.MonkeyPatch, is_frozen: bool) -> Run:
    run = Run(request_of(VOCAB, LENGTH, [expert(place, 0, SWITCH), expert(place, SWITCH, LENGTH)]))

    def on_step(seconds: float) -> None:
        run.tokens.append(run.request.num_output_tokens)
        if is_frozen and run.request.num_output_tokens >= SWITCH:
            monkeypatch.setattr(SuccessCounts, "learn", lambda counts, *trial: None)

    place.run([run.request], on_step)
    return run


def test_after_a_change_of_topic_the_rate_is_back_within_tens_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(per_row=0.1)
    live = decode(world(target_of(VOCAB).logits, VOCAB, costs, budget=8), monkeypatch, is_frozen=False)
    before = live.rate(50, SWITCH)
    assert before > 4
    assert live.rate(SWITCH + RECOVERED, LENGTH) > SHARE * before
    frozen = decode(world(target_of(VOCAB).logits, VOCAB, costs, budget=8), monkeypatch, is_frozen=True)
    assert frozen.rate(50, SWITCH) == pytest.approx(before)
    assert frozen.rate(SWITCH + RECOVERED, LENGTH) < 0.5 * before


def test_estimates_follow_the_topic_within_tens_of_tokens() -> None:
    place = world(target_of(VOCAB).logits, VOCAB, Costs(per_row=0.1), budget=8)
    drafters = [expert(place, 0, SWITCH), expert(place, SWITCH, LENGTH)]
    request = request_of(VOCAB, LENGTH, drafters)
    estimated: dict[int, tuple[float, float]] = {}

    def on_step(seconds: float) -> None:
        if request.finish_reason is None:
            counts = place.pacer._states[request.id].counts
            first, second = (counts.probability((drafter.name, 1), 1.0) for drafter in drafters)
            estimated[request.num_output_tokens] = (first, second)

    place.run([request], on_step)
    at = {where: max(n for n in estimated if n <= where) for where in (SWITCH, SWITCH + RECOVERED, LENGTH - 1)}
    first, second = estimated[at[SWITCH]]
    assert first > 0.8
    assert first > second
    first, second = estimated[at[SWITCH + RECOVERED]]
    assert second > 0.6
    assert second > first
