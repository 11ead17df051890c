"""Proposals taken in as they come: what they would bring, what they cover, and which of them get rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.engine.request import StepOutcome, Token
from paceline.engine.tree import MAX_DEPTH, DraftTree, TreeBuilder
from paceline.pacing.base import Room
from paceline.pacing.beliefs import Beliefs, Counts
from paceline.pacing.growth import Growth, ranked
from paceline.testing import ScriptedDrafter


def somebody(name: str = "somebody") -> ScriptedDrafter:
    drafter = ScriptedDrafter()
    drafter.name = name  # type: ignore[misc]
    return drafter


def tree_of(name: str, *nodes: tuple[int, int, float]) -> DraftTree:
    builder = TreeBuilder(name)
    for parent, token, score in nodes:
        builder.add(parent, token, score, 0)
    return builder.build()


def growth_of(nodes: int = 64, depth: int = MAX_DEPTH, counts: Counts | None = None) -> Growth:
    return Growth(Beliefs(counts or Counts(1e9)), Room(nodes, depth))


def test_coverage_is_the_chance_that_the_next_token_is_among_the_drafts() -> None:
    growth = growth_of()
    assert growth.foreseen.coverage == 0.0
    growth.take(somebody("a"), tree_of("a", (-1, 1, 0.5), (-1, 2, 0.2), (0, 3, 0.9)))
    assert growth.foreseen.coverage == pytest.approx(0.7)
    growth.take(somebody("b"), tree_of("b", (-1, 1, 0.5), (-1, 4, 0.1)))  # agrees about 1: 1 - 0.5 * 0.5
    assert growth.foreseen.coverage == pytest.approx(0.75 + 0.2 + 0.1, abs=0.06)
    assert growth.foreseen.coverage <= 1.0


def test_a_stage_gains_what_its_own_nodes_would_bring() -> None:
    growth, drafter = growth_of(), somebody()
    nodes = [(-1, 1, 0.8), (0, 2, 0.5), (0, 3, 0.25), (1, 4, 0.5)]
    gains = [growth.take(drafter, tree_of("somebody", *nodes[:size])) for size in (1, 3, 3, 4)]
    assert gains == pytest.approx([0.8, 0.8 * 0.75, 0.0, 0.8 * 0.5 * 0.5])
    assert growth.worth(drafter) == pytest.approx(sum(gains))
    assert growth.worth(somebody()) == 0.0
    assert growth.take(drafter, DraftTree()) == 0.0


def test_chances_are_the_calibrated_ones_and_not_the_drafters_own() -> None:
    counts = Counts(1e9)
    for _ in range(400):
        counts.add(("somebody", 0), False)
    growth = growth_of(counts=counts)
    assert growth.take(somebody(), tree_of("somebody", (-1, 1, 1.0), (0, 2, 1.0))) < 0.02


def outcome_of(*said: int) -> StepOutcome:
    tokens = tuple(Token(token, "", "target", 0.0, 0.0) for token in said)
    return StepOutcome(None, DraftTree(), (), tokens, np.zeros((1, 9), np.float32))  # type: ignore[arg-type]


def test_all_proposals_are_judged_and_agreement_by_itself() -> None:
    counts = Counts(1e9)
    growth = growth_of(counts=counts)
    growth.take(somebody("a"), tree_of("a", (-1, 1, 0.5), (0, 2, 0.5)))
    growth.take(somebody("b"), tree_of("b", (-1, 1, 0.5), (0, 3, 0.5)))
    growth.judge(outcome_of(1, 2))
    assert counts.of(("a", 0)) == pytest.approx((2.0, 2.0))
    assert counts.of(("b", 0)) == pytest.approx((2.0, 1.0))
    assert counts.of(("a+b", 7)) == pytest.approx((1.0, 1.0))  # 0.75, were they independent


parts = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 3), st.floats(0.0, 1.0)), max_size=25)


def grown(nodes: list[tuple[int, int, int, float]], room: Room) -> Growth:
    """A growth of three drafters, whose nodes come as (drafter, parent's place, token, score)."""
    growth = Growth(Beliefs(Counts(1e9)), room)
    for which in range(3):
        builder = TreeBuilder(f"drafter {which}")
        for _, parent, token, score in (node for node in nodes if node[0] == which):
            builder.add(min(parent, len(builder)) - 1, token, score, token % 2)
        growth.take(somebody(f"drafter {which}"), builder.build())
    return growth


@settings(max_examples=150)
@given(st.lists(st.tuples(parts, st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=3))
def test_picks_come_likeliest_first_below_their_parents_and_no_more_than_there_is_room_for(specs) -> None:
    growths = [grown(nodes, Room(most, depth)) for nodes, most, depth in specs]
    picks = ranked(growths)
    seen: set[tuple[int, int]] = set()
    for pick in picks:
        union = growths[pick.growth].union
        assert union.parents[pick.node] < 0 or (pick.growth, union.parents[pick.node]) in seen
        assert (pick.growth, pick.node) not in seen
        assert pick.reach == union.reach[pick.node]
        assert union.depths[pick.node] <= growths[pick.growth].room.depth
        seen.add((pick.growth, pick.node))
    assert all(one.reach >= other.reach for one, other in itertools.pairwise(picks))
    for index, growth in enumerate(growths):
        assert sum(pick.growth == index for pick in picks) == min(growth.room.nodes, len(growth.union))
    for size in range(len(picks) + 1):  # any number of the first ones makes whole trees
        for index, growth in enumerate(growths):
            nodes = [pick.node for pick in picks[:size] if pick.growth == index]
            tree = growth.union.cut(nodes)
            assert len(tree) == len(nodes)
            assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
