"""Who is asked, how far drafts go, and what gets rows: the pacer's choices on a simulated clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from law.support import target_of
from paceline.engine.request import Request
from paceline.engine.tree import DraftTree
from paceline.pacing import FixedPacer
from paceline.testing import ScriptedDrafter, chain
from pacing.simulated import Costs, TimedDrafter, World, request_of, world

VOCAB = 13


def place_of(costs: Costs, budget: int = 64) -> World:
    return world(target_of(VOCAB).logits, VOCAB, costs, budget=budget)


def perfect(place: World, name: str, share: float, num_levels: int = 1) -> TimedDrafter:
    """Always right, at a share of a plain step for each level."""
    script = ScriptedDrafter.perfect(place.target)._script
    return TimedDrafter(name, script, place.clock, share * place.target.costs.base, num_levels)


def wrong(place: World, name: str, share: float) -> TimedDrafter:
    script = ScriptedDrafter.adversarial(place.target)._script
    return TimedDrafter(name, script, place.clock, share * place.target.costs.base)


def decoded(place: World, drafters, num_tokens: int = 200) -> Request:
    request = request_of(VOCAB, num_tokens, drafters)
    place.run([request])
    return request


def test_confident_drafts_are_long_and_dear_rows_make_them_shorter() -> None:
    rates = []
    for per_row in (0.02, 0.3, 3.0):
        place = place_of(Costs(per_row=per_row))
        request = decoded(place, [perfect(place, "sure", 0.01)])
        rates.append(request.stats.mean_acceptance_length)
    assert rates[0] > 10
    assert rates[0] > rates[1] > rates[2] >= 1.0
    assert rates[2] < 1.2  # a row that costs three plain steps is not worth one token


def test_a_hopeless_drafter_is_asked_seldom_and_gets_hardly_a_row() -> None:
    place = place_of(Costs(per_row=0.1))
    drafter = wrong(place, "hopeless", 0.1)
    request = decoded(place, [drafter], 800)
    assert 2 <= drafter.num_asked * 0.1 <= 0.02 * 800 + 2  # now and then, in case it has become better
    assert request.stats.num_draft_tokens < 800 / 10


class SlowObserver(TimedDrafter):
    """Takes two plain steps to observe what came of its proposals."""

    def observe(self, outcome) -> None:
        self.clock.advance(2e-2)


def test_what_observing_takes_is_part_of_what_asking_costs() -> None:
    place = place_of(Costs(per_row=0.1), budget=1)
    script = ScriptedDrafter.perfect(place.target)._script
    slow = SlowObserver("slow", script, place.clock, 1e-5)
    quick = TimedDrafter("quick", script, place.clock, 1e-5)
    asked = {drafter.name: (decoded(place, [drafter], 300), drafter.num_asked)[1] for drafter in (slow, quick)}
    assert asked["slow"] < 20  # a token saved would cost more than it saves
    assert asked["quick"] > 100


def test_of_two_that_are_right_the_cheaper_is_asked_and_the_dearer_is_left_alone() -> None:
    place = place_of(Costs(per_row=0.1), budget=5)
    cheap, dear = perfect(place, "z cheap", 0.001), perfect(place, "a dear", 0.4)
    request = decoded(place, [dear, cheap], 400)
    assert cheap.num_asked > 0.9 * request.stats.num_steps
    assert dear.num_asked < 0.2 * request.stats.num_steps


@pytest.mark.parametrize(("right", "least", "most"), [(12, 6, 12), (1, 1, 3)])
def test_a_model_looks_further_as_long_as_a_level_promises_more_than_it_costs(right, least, most) -> None:
    place = place_of(Costs(per_row=0.05))
    tokens = ScriptedDrafter.adversarial(place.target, right)._script

    def script(request: Request, count: int) -> DraftTree:
        drafts = chain(tokens(request, count))
        return replace(drafts, scores=tuple(0.95 if depth < right else 0.05 for depth in range(len(drafts))))

    drafter = TimedDrafter("levels", script, place.clock, 0.1 * place.target.costs.base, num_levels=12)
    decoded(place, [drafter], 900)
    assert least <= drafter.num_shown / drafter.num_asked <= most


def test_the_pacer_is_not_far_from_the_best_fixed_length_and_beats_most() -> None:
    def seconds(pacer_of, per_row: float) -> float:
        place = place_of(Costs(per_row=per_row))
        place.engine.pacer = pacer_of(place)
        script = ScriptedDrafter.adversarial(place.target, right=4)._script
        return decoded(place, [TimedDrafter("four", script, place.clock, 1e-4)], 400).stats.decode_seconds

    for per_row in (0.02, 0.2):
        paced = seconds(lambda place: place.pacer, per_row)
        fixed = [seconds(lambda place, k=k: FixedPacer(k), per_row) for k in (1, 2, 4, 7, 15)]
        assert paced < 1.1 * min(fixed)
        assert sum(paced < one for one in fixed) >= 3


def test_stops_say_why_drafting_went_no_further() -> None:
    place = place_of(Costs(per_row=3.0))
    request = decoded(place, [wrong(place, "wrong", 0.1), perfect(place, "right", 0.2)], 100)
    stops = request.stats.pacing["stops"]
    assert sum(stops.values()) == request.stats.num_steps
    assert stops.keys() <= {"idle", "no drafts", "rows would not pay", "guard", "all drafts taken"}
    assert len(stops) > 1


def test_seconds_saved_are_credited_to_whoever_saved_them() -> None:
    place = place_of(Costs(per_row=0.1))
    request = decoded(place, [wrong(place, "wrong", 0.1), perfect(place, "right", 0.01)], 200)
    said = request.stats.as_dict()["drafters"]
    assert said["right"]["saved_seconds"] > 50 * place.target.costs.base
    assert said["wrong"]["saved_seconds"] < 0
    assert said["wrong"]["seconds"] == pytest.approx(said["wrong"]["num_proposals"] * 1e-3, rel=0.05)


def test_attaching_twice_does_nothing() -> None:
    place = place_of(Costs())
    drafter = perfect(place, "right", 0.01)
    place.pacer.attach(drafter, place.target)
    num_asked, now = drafter.num_asked, place.clock.now
    assert num_asked > 0
    place.pacer.attach(drafter, place.target)
    assert (drafter.num_asked, place.clock.now) == (num_asked, now)


def test_a_step_that_fails_before_it_is_observed_leaves_nothing_to_the_next() -> None:
    place, clean = place_of(Costs(per_row=0.1)), place_of(Costs(per_row=0.1))
    score = place.target.score

    def failing(work):
        place.target.score = score  # type: ignore[method-assign]
        raise RuntimeError("not today")

    place.target.score = failing  # type: ignore[method-assign]
    failed = decoded(place, [perfect(place, "right", 0.01)])
    assert failed.finish_reason == "error"
    plain = [decoded(world, [], 30) for world in (place, clean)]  # idle steps, after one that had a plan
    assert [request.stats.pacing["stops"] for request in plain] == [{"idle": 30}] * 2
    first, second = (request.stats.pacing["elapsed_seconds"] for request in plain)
    assert first == pytest.approx(second, rel=1e-6)
    assert not place.pacer._states
