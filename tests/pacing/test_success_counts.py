"""How often drafters are right: small examples worked out by hand, and what judging a tree learns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.pacing.success_counts import REQUEST_MEMORY, SHARED_MEMORY, SuccessCounts, buckets_of, evaluated

KEY = ("somebody", 3)


def tree_of(*nodes: tuple[int, int, float, int]) -> DraftTree:
    """A tree of (parent, token, score, bucket)."""
    builder = TreeBuilder("somebody")
    for node in nodes:
        builder.add(*node)
    return builder.build()


def of_request(shared: SuccessCounts) -> SuccessCounts:
    return SuccessCounts(REQUEST_MEMORY, shared)


def test_counts_lose_weight_as_new_ones_come() -> None:
    counts = SuccessCounts(memory=4.0)
    assert counts.of(KEY) == (0.0, 0.0)
    counts.add(KEY, True)
    assert counts.of(KEY) == (1.0, 1.0)
    counts.add(KEY, False)
    assert counts.of(KEY) == (1.75, 0.75)
    counts.add(KEY, True)
    assert counts.of(KEY) == (0.75 * 1.75 + 1, 0.75 * 0.75 + 1)
    assert counts.of(("somebody", 4)) == counts.of(("another", 3)) == (0.0, 0.0)


@given(st.lists(st.booleans(), max_size=300), st.sampled_from([2.0, REQUEST_MEMORY, SHARED_MEMORY]))
def test_no_more_is_remembered_than_the_memory_and_no_more_successes_than_trials(trials: list[bool], memory) -> None:
    counts = SuccessCounts(memory)
    for is_right in trials:
        counts.add(KEY, is_right)
    weight, successes = counts.of(KEY)
    assert 0 <= successes <= weight + 1e-9
    assert weight <= min(memory, len(trials)) + 1e-9


def test_probabilities_start_at_the_score_and_go_to_what_happens() -> None:
    shared = SuccessCounts(1e9)  # forgets nothing
    counts = of_request(shared)
    assert counts.probability(KEY, 0.3) == pytest.approx(0.3)
    for is_right in (True, True, False):
        shared.add(KEY, is_right)
    prior = (4 * 0.3 + 2) / (4 + 3)
    assert counts.probability(KEY, 0.3) == pytest.approx(prior)  # nothing in this request yet
    counts.add(KEY, True)
    prior = (4 * 0.3 + 3) / (4 + 4)
    assert shared.probability(KEY, 0.3) == pytest.approx(prior)
    assert counts.probability(KEY, 0.3) == pytest.approx((8 * prior + 1) / (8 + 1))


@given(st.lists(st.booleans(), max_size=60), st.floats(0, 1))
def test_probabilities_are_probabilities(trials: list[bool], score: float) -> None:
    counts = of_request(SuccessCounts(SHARED_MEMORY))
    for is_right in trials:
        counts.add(KEY, is_right)
    assert 0.0 <= counts.probability(KEY, score) <= 1.0


def test_requests_share_what_they_learn_and_each_follows_its_own_text_faster() -> None:
    shared = SuccessCounts(SHARED_MEMORY)
    first, second = of_request(shared), of_request(shared)
    for _ in range(200):
        first.add(KEY, True)
    assert second.probability(KEY, 0.1) == pytest.approx(first.probability(KEY, 0.1), abs=0.05)
    assert second.probability(KEY, 0.1) > 0.9
    for _ in range(20):
        second.add(KEY, False)
    assert second.probability(KEY, 0.1) < 0.4  # a change of topic is learnt within tens of tokens
    assert first.probability(KEY, 0.1) > 0.9  # and is nobody else's
    third = of_request(shared)
    assert third.probability(KEY, 0.1) > 0.8


#      0: 7        1: 8
#     /    \         \
#  2: 5    3: 6      4: 5
#  |
#  5: 9
BRANCHING = tree_of((-1, 7, 0.6, 0), (-1, 8, 0.3, 1), (0, 5, 0.5, 2), (0, 6, 0.4, 3), (1, 5, 0.9, 4), (2, 9, 0.8, 5))


@pytest.mark.parametrize(
    ("said", "length", "judged"),
    [
        ((7, 5, 9, 1), 3, {0: True, 1: False, 2: True, 3: False, 5: True}),
        ((7, 5, 9), 3, {0: True, 1: False, 2: True, 3: False, 5: True}),
        ((7, 6, 9), 2, {0: True, 1: False, 2: False, 3: True}),
        ((7, 1), 1, {0: True, 1: False, 2: False, 3: False}),
        ((8, 5), 2, {0: False, 1: True, 4: True}),
        ((8,), 1, {0: False, 1: True}),
        ((5, 5), 0, {0: False, 1: False}),
        ((), 0, {}),
    ],
)
def test_a_tree_is_judged_where_the_target_came_by_and_nowhere_else(said, length: int, judged: dict) -> None:
    assert dict(evaluated(BRANCHING.tokens, BRANCHING.parents, said)) == judged
    assert sum(judged.values()) == length
    shared = SuccessCounts(1e9)
    of_request(shared).judge("somebody", BRANCHING, said)
    for bucket in range(6):
        expected = (1.0, float(judged[bucket])) if bucket in judged else (0.0, 0.0)
        assert shared.of(("somebody", bucket)) == expected


def test_what_gets_no_row_is_judged_like_what_does() -> None:
    """Judging looks at proposals and emitted tokens alone: there is no exploring to do."""
    shared = SuccessCounts(1e9)
    counts = of_request(shared)
    counts.judge("somebody", BRANCHING, [7, 5])
    before = shared.of(("somebody", 0))
    counts.judge("another", tree_of((-1, 7, 0.6, 0)), [7, 5])
    assert shared.of(("somebody", 0)) == before
    assert shared.of(("another", 0)) == (1.0, 1.0)


def test_probabilities_of_a_trees_nodes_are_by_bucket_or_by_tenth_of_the_score() -> None:
    shared = SuccessCounts(1e9)
    counts = of_request(shared)
    for _ in range(30):
        shared.add(("somebody", 4), False)
    assert counts.probabilities("somebody", BRANCHING)[3:] == pytest.approx([0.4, 4 * 0.9 / 34, 0.8])
    without_buckets = DraftTree((1, 2, 3, 4), (-1, 0, 1, 2), (0.0, 0.09, 0.55, 1.0), ("somebody",) * 4)
    assert buckets_of(without_buckets) == [0, 0, 5, 9]
    assert counts.probabilities("somebody", without_buckets) == pytest.approx([0.0, 4 * 0.0 + 0.09, 0.55, 1.0])


def test_agreement_is_learnt_by_who_agreed_and_how_sure_they_were_in_any_order() -> None:
    counts = of_request(SuccessCounts(1e9))
    for _ in range(50):
        counts.judge_agreement(["b", "a"], 0.95, False)
    assert counts.agreed(["a", "b"], 0.92) < 0.2
    assert counts.agreed(["a", "b"], 0.55) == pytest.approx(0.55)  # as sure as this, they have never been
    assert counts.agreed(["a", "c"], 0.95) == pytest.approx(0.95)
    assert counts.probability(("a", 9), 0.95) == pytest.approx(0.95)  # what each is worth alone is another matter


def test_what_fails_in_some_buckets_is_doubted_in_those_that_were_not_seen() -> None:
    shared = SuccessCounts(1e9)
    counts = of_request(shared)
    untried = tree_of((-1, 1, 0.8, 77))
    assert counts.probabilities("somebody", untried) == [0.8]
    for bucket in range(10):  # a trial in each
        counts.judge("somebody", tree_of((-1, 1, 0.8, bucket)), [2])
    expected = 0.8 * 4 / (4 + 8)  # by the shared counts; in the request they expected less and less
    assert shared.probabilities("somebody", untried) == pytest.approx([expected])
    assert counts.probabilities("somebody", untried)[0] < 0.6 * expected
    assert counts.probabilities("another", untried) == [0.8]
    for _ in range(20):
        counts.judge("somebody", tree_of((-1, 1, 0.8, 3)), [1])
    assert 0.5 < counts.probabilities("somebody", untried)[0] <= 1.0


def test_one_by_one_they_are_what_they_are_together() -> None:
    counts = of_request(SuccessCounts(SHARED_MEMORY))
    tree = tree_of((-1, 1, 0.7, 0), (0, 2, 0.2, 1), (0, 3, 0.9, 5), (-1, 4, 0.3, 9))
    for said in ([1, 2], [1, 3], [4], [5], [1, 3]):
        counts.judge("somebody", tree, said)
        found = [counts.probability(("somebody", b), s) for b, s in zip(tree.buckets, tree.scores, strict=True)]
        assert counts.probabilities("somebody", tree) == pytest.approx(found)
