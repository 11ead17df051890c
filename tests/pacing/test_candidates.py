"""Proposals taken in: what they would bring, what they cover, and which of them get rows."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.engine.tree import MAX_DEPTH, DraftTree, TreeBuilder
from paceline.pacing.candidates import Candidates, ranked
from paceline.pacing.success_counts import REQUEST_MEMORY, SuccessCounts
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


def candidates_of(nodes: int = 64, depth: int = MAX_DEPTH, shared: SuccessCounts | None = None) -> Candidates:
    return Candidates(SuccessCounts(REQUEST_MEMORY, shared or SuccessCounts(1e9)), nodes, depth)


def test_what_others_cover_is_not_expected_again() -> None:
    candidates = candidates_of()
    assert candidates.new_tokens(2.0) == 2.0
    candidates.add(somebody("a"), tree_of("a", (-1, 1, 0.5), (-1, 2, 0.2), (0, 3, 0.9)))
    assert candidates.new_tokens(1.0) == pytest.approx(1.0 - 0.7)  # the next token is among theirs
    assert candidates.new_tokens(4.0) == pytest.approx(4.0 - 0.5 - 0.2 - 0.5 * 0.9)  # but it looks further
    candidates.add(somebody("b"), tree_of("b", (-1, 1, 0.5), (-1, 4, 0.1)))
    assert candidates.new_tokens(1.0) == pytest.approx(0.3 * 0.4)
    candidates.add(somebody("c"), tree_of("c", *((-1, token, 0.5) for token in range(5, 9))))
    assert candidates.new_tokens(1.0) == 0.0


def judged(candidates: Candidates, *said: int) -> list[tuple[str, float, float]]:
    """(name, tokens, own) of each proposal."""
    return [(verdict.drafter.name, verdict.tokens, verdict.own) for verdict in candidates.judge(said)]


def test_a_proposal_is_worth_what_its_paths_promised_and_what_came_of_them() -> None:
    tree = tree_of("somebody", (-1, 1, 0.8), (0, 2, 0.5), (0, 3, 0.25), (1, 4, 0.5))
    promised = 0.8 * (1 + 0.5 + 0.25 + 0.5 * 0.5)
    for said, seen in (((9,), 0), ((1, 9), 1), ((1, 2, 4, 7), 3), ((1,), promised)):  # the last may go on
        candidates = candidates_of()
        candidates.add(somebody(), tree)
        candidates.add(somebody("silent"), DraftTree())
        assert judged(candidates, *said) == [
            ("somebody", pytest.approx(0.9 * seen + 0.1 * promised), pytest.approx(promised)),
            ("silent", 0.0, 0.0),
        ]


def test_probabilities_are_the_calibrated_ones_and_not_the_drafters_own() -> None:
    counts = SuccessCounts(1e9)
    for _ in range(400):
        counts.add(("somebody", 0), False)
    candidates = candidates_of(shared=counts)
    candidates.add(somebody(), tree_of("somebody", (-1, 1, 1.0), (0, 2, 1.0)))
    [(_, tokens, own)] = judged(candidates, 9)
    assert tokens < 0.005
    assert own == 2.0


def test_all_proposals_are_judged_and_agreement_by_itself() -> None:
    counts = SuccessCounts(1e9)
    candidates = candidates_of(shared=counts)
    candidates.add(somebody("a"), tree_of("a", (-1, 1, 0.5), (0, 2, 0.5)))
    candidates.add(somebody("b"), tree_of("b", (-1, 1, 0.5), (0, 3, 0.5)))
    judged(candidates, 1, 2)
    assert counts.of(("a", 0)) == pytest.approx((2.0, 2.0))
    assert counts.of(("b", 0)) == pytest.approx((2.0, 1.0))
    assert counts.of(("a+b", 7)) == pytest.approx((1.0, 1.0))  # 0.75, were they independent


parts = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 3), st.floats(0.0, 1.0)), max_size=25)


def proposed(nodes: list[tuple[int, int, int, float]], max_nodes: int, max_depth: int) -> Candidates:
    """Candidates of three drafters, whose nodes come as (drafter, parent's place, token, score)."""
    candidates = candidates_of(max_nodes, max_depth)
    for which in range(3):
        builder = TreeBuilder(f"drafter {which}")
        for _, parent, token, score in (node for node in nodes if node[0] == which):
            builder.add(min(parent, len(builder)) - 1, token, score, token % 2)
        candidates.add(somebody(f"drafter {which}"), builder.build())
    return candidates


@settings(max_examples=150)
@given(st.lists(st.tuples(parts, st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=3))
def test_nodes_come_likeliest_first_below_their_parents_and_no_more_than_a_request_may_have(specs) -> None:
    requests = [proposed(*spec) for spec in specs]
    ranking = ranked(requests)
    seen: set[tuple[int, int]] = set()
    for path, index, node in ranking:
        union = requests[index].union
        assert union.parents[node] < 0 or (index, union.parents[node]) in seen
        assert (index, node) not in seen
        assert path == union.path_probabilities[node]
        assert union.depths[node] <= requests[index].max_depth
        seen.add((index, node))
    assert all(one >= other for (one, *_), (other, *_) in itertools.pairwise(ranking))
    for index, candidates in enumerate(requests):
        of_request = [owner for _, owner, _ in ranking if owner == index]
        assert len(of_request) == min(candidates.max_nodes, len(candidates.union))
    for size in range(len(ranking) + 1):  # any number of the first ones makes whole trees
        for index, candidates in enumerate(requests):
            nodes = [node for _, owner, node in ranking[:size] if owner == index]
            tree = candidates.union.cut(nodes)
            assert len(tree) == len(nodes)
            assert all(-1 <= parent < node for node, parent in enumerate(tree.parents))
