"""What one process has learnt is where the next one starts; what is not sound of it is as if it had never been."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from law.support import target_of
from paceline.drafters import BaseDrafter
from paceline.drafters.base import option
from paceline.engine.tree import DraftTree
from paceline.pacing.costs import CostTable, ForwardCost
from paceline.pacing.experience import Experience
from paceline.testing import ScriptedDrafter
from pacing.simulated import Costs, TimedDrafter, World, request_of, world

VOCAB = 11
GUESS = 1e-4


class Known(TimedDrafter):
    """A timed drafter that is the same in other processes."""

    @property
    def identity(self) -> str:
        return self.name


def drafter_of(place: World, name: str, share: float, right: int) -> Known:
    script = ScriptedDrafter.adversarial(place.target, right)._script
    return Known(name, script, place.clock, share * place.target.costs.base)


class Identified(ScriptedDrafter):
    """A drafter that says who it is."""

    identity = ""

    def __init__(self, name: str, identity: str) -> None:
        super().__init__()
        self.name, self.identity = name, identity  # type: ignore[misc]


def taught() -> Experience:
    """Two drafters: one that is right three times of four, and where both agree always."""
    experience = Experience(GUESS)
    for name in ("a", "b"):
        assert not experience.meet(Identified(name, f"{name} of then"))
        for _ in range(9):
            experience.drafters[name].learn_cost(1, 1, 3e-3)
            experience.drafters[name].expected_tokens.learn(2.5)
    tree = DraftTree((5,), (-1,), (0.5,), ("a",), (3,))
    for said in (5, 5, 4, 5):
        experience.counts.judge("a", tree, [said])
    for _ in range(200):
        experience.counts.judge_agreement(["b", "a"], 0.55, True)
    return experience


def reopened(kept: object) -> Experience:
    return Experience(GUESS, json.loads(json.dumps(kept)))


def test_what_was_learnt_is_known_to_the_next_process_by_another_name_too() -> None:
    before = taught()
    after = reopened(before.as_json())
    assert after.meet(Identified("b 2", "a of then"))  # it has another name here, and what was "b" is "a 2"
    assert after.drafters["b 2"].first_seconds(1) == before.drafters["a"].first_seconds(1)
    assert after.drafters["b 2"].expected_tokens.value == before.drafters["a"].expected_tokens.value
    assert after.counts.of(("b 2", 3)) == pytest.approx(before.counts.of(("a", 3)))
    assert after.counts.of(("a 2+b 2", 5)) == (0.0, 0.0)
    assert after.meet(Identified("a 2", "b of then"))
    trials, successes = after.counts.of(("a 2+b 2", 5))
    assert trials == successes == pytest.approx(64.0)  # no more, so that new facts are believed


def test_another_drafter_of_the_same_name_starts_anew() -> None:
    after = reopened(taught().as_json())
    assert not after.meet(Identified("a", "a with other options"))
    assert after.counts.of(("a", 3)) == (0.0, 0.0)
    assert after.drafters["a"].first_seconds(1) == GUESS


def test_what_was_not_met_is_kept_on() -> None:
    kept = taught().as_json()
    after = reopened(kept)
    after.meet(Identified("a", "a of then"))
    again = json.loads(json.dumps(after.as_json()))
    assert again["drafters"].keys() == kept["drafters"].keys()
    assert again["counts"].keys() == kept["counts"].keys()


def test_who_was_never_timed_is_not_kept() -> None:
    experience = Experience(GUESS)
    experience.meet(Identified("a", "a"))
    experience.meet(ScriptedDrafter())  # nor who has more than one process knows: a name, and options
    assert experience.as_json()["drafters"] == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "a+b", "drafters"]), inner),
)
files = st.fixed_dictionaries({}, optional={"drafters": json_values, "counts": json_values})


@given(json_values | files)
def test_a_file_that_anybody_may_have_written_does_no_harm(kept) -> None:
    experience = Experience(GUESS, kept)
    for name in ("a", "b"):
        experience.meet(Identified(name, name))
        assert 0.0 <= experience.drafters[name].usual_seconds < float("inf")
    for key, _ in [*experience.counts.items()]:
        assert 0.0 <= experience.counts.probability(key, 0.5) <= 1.0
    experience.as_json()


@dataclass(eq=False)
class Mine(BaseDrafter):
    name = "mine"

    depth: int = option(3, help="how deep")


def test_options_tell_drafters_of_a_kind_apart() -> None:
    assert Mine().identity == Mine(3).identity == "mine(depth=3)"
    assert Mine(4).identity == "mine(depth=4)"


def test_a_new_process_drafts_from_its_first_step_what_the_old_one_had_to_learn(tmp_path) -> None:
    file = tmp_path / "kept" / "pacing.json"

    def first_request() -> tuple[World, float]:
        place = world(target_of(VOCAB).logits, VOCAB, Costs(per_row=0.1), file=file)
        request = request_of(VOCAB, 60, [drafter_of(place, "wrong", 0.3, 0), drafter_of(place, "right", 0.3, 9)])
        place.run([request])
        return place, request.stats.decode_seconds

    place, cold = first_request()
    place.pacer.rest()
    assert json.loads(file.read_text())["drafters"].keys() == {"wrong", "right"}
    _, warm = first_request()
    assert warm < 0.9 * cold


def test_it_is_kept_now_and_then_and_at_the_end(tmp_path) -> None:
    place = world(target_of(VOCAB).logits, VOCAB, Costs(), file=tmp_path / "kept.json")
    place.pacer.close()
    assert not place.pacer._file.exists()  # nothing was learnt

    def rested(seed: int) -> int:
        place.run([request_of(VOCAB, 9, [drafter_of(place, "right", 0.1, 9)], seed)])
        place.pacer.rest()
        return place.pacer._file.stat().st_mtime_ns

    first = rested(0)
    assert rested(1) == first
    place.clock.advance(11.0)
    second = rested(2)
    assert second > first
    rested(3)
    place.pacer.close()
    assert place.pacer._file.stat().st_mtime_ns > second


def test_what_forwards_cost_is_kept_at_the_end_too() -> None:
    kept: list[dict[int, ForwardCost]] = []
    place = world(target_of(VOCAB).logits, VOCAB, Costs())
    place.pacer.costs = CostTable({1: ForwardCost(1e-2, 0.0)}, keep=kept.append)
    place.run([request_of(VOCAB, 100)])
    num_kept = len(kept)
    assert num_kept == 2  # at the 8th and the 16th sample: a step in four is learnt from
    place.pacer.close()
    assert len(kept) == num_kept + 1
    place.pacer.close()  # nothing new
    assert len(kept) == num_kept + 1
