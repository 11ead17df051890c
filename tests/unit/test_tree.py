"""Draft trees: building, and merging many into one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.tree import MAX_DEPTH, DraftTree, TreeBuilder, TreeUnion, merge
from paceline.testing import chain

Path = tuple[int, ...]


def tree_of(source: str, *nodes: tuple[int, int, float]) -> DraftTree:
    """A tree of (parent, token, score)."""
    parents, tokens, scores = zip(*nodes, strict=True) if nodes else ((), (), ())
    return DraftTree(tokens, parents, scores, (source,) * len(nodes))


def paths_of(tree: DraftTree) -> list[Path]:
    """The tokens from the root to each node."""
    paths: list[Path] = []
    for token, parent in zip(tree.tokens, tree.parents, strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), token))
    return paths


def estimated(trees: list[DraftTree]) -> tuple[dict[Path, float], dict[Path, float]]:
    """The probability of each path's last token given the ones before it, and of the whole path.

    Drafters are taken to err independently; each is heard once about a path. Siblings share a probability of 1 at most.
    """
    given: dict[Path, dict[str, float]] = {}
    for tree in trees:
        for path, score, source in zip(paths_of(tree), tree.scores, tree.sources, strict=True):
            given.setdefault(path, {}).setdefault(source, score)
    probabilities = {path: 1 - math.prod(1 - score for score in scores.values()) for path, scores in given.items()}
    totals: dict[Path, float] = {}
    for path, probability in probabilities.items():
        totals[path[:-1]] = totals.get(path[:-1], 0.0) + probability
    probabilities = {path: probability / max(1.0, totals[path[:-1]]) for path, probability in probabilities.items()}
    return probabilities, {
        path: math.prod(probabilities[path[:i]] for i in range(1, len(path) + 1)) for path in probabilities
    }


@st.composite
def trees(draw: st.DrawFn) -> DraftTree:
    """Any tree at all, with equal siblings and scores that add up to more than 1."""
    nodes: list[tuple[int, int, float]] = []
    for _ in range(draw(st.integers(0, 13))):
        parent = draw(st.integers(-1, len(nodes) - 1))
        nodes.append((parent, draw(st.integers(0, 3)), draw(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]))))
    return tree_of(draw(st.sampled_from("abc")), *nodes)


several = st.lists(trees(), max_size=4)


@given(several, st.integers(0, 40))
def test_a_merged_tree_keeps_its_budget_and_its_ancestors(proposals: list[DraftTree], budget: int) -> None:
    merged = merge(proposals, budget)
    assert len(merged) == min(budget, len(estimated(proposals)[0]))
    assert all(-1 <= parent < node for node, parent in enumerate(merged.parents))


@given(several, st.integers(0, 40))
def test_a_merged_tree_holds_the_likeliest_paths_once_each(proposals: list[DraftTree], budget: int) -> None:
    probabilities, path_probabilities = estimated(proposals)
    merged = merge(proposals, budget)
    paths = paths_of(merged)
    assert len(set(paths)) == len(paths)
    assert merged.scores == pytest.approx([probabilities[path] for path in paths])
    kept = sorted((path_probabilities[path] for path in paths), reverse=True)
    assert kept == pytest.approx(sorted(path_probabilities.values(), reverse=True)[: len(merged)])


@given(several, st.integers(0, 40))
def test_a_merged_tree_is_depth_first_with_the_best_child_first(proposals: list[DraftTree], budget: int) -> None:
    merged = merge(proposals, budget)
    lineage: list[int] = [-1]
    for node, parent in enumerate(merged.parents):
        assert parent in lineage  # the parent is the node before, or one above it
        lineage = [*lineage[: lineage.index(parent) + 1], node]
    for parent in {-1, *merged.parents}:
        siblings = [merged.scores[node] for node in range(len(merged)) if merged.parents[node] == parent]
        assert siblings == sorted(siblings, reverse=True)


@given(several, st.integers(0, 5), st.integers(0, 20))
def test_a_merged_tree_is_no_deeper_than_it_may_be(proposals: list[DraftTree], depth: int, budget: int) -> None:
    merged = merge(proposals, budget, depth)
    path_probabilities = estimated(proposals)[1]
    shallow = sorted(
        (probability for path, probability in path_probabilities.items() if len(path) <= depth), reverse=True
    )
    assert len(merged) == min(budget, len(shallow))
    assert sorted((path_probabilities[path] for path in paths_of(merged)), reverse=True) == pytest.approx(
        shallow[:budget]
    )
    assert max(merged.depths, default=0) <= depth


@given(several)
def test_a_node_names_a_drafter_that_gave_it_its_best_score(proposals: list[DraftTree]) -> None:
    given_by: dict[Path, dict[str, float]] = {}
    for tree in proposals:
        for path, score, source in zip(paths_of(tree), tree.scores, tree.sources, strict=True):
            given_by.setdefault(path, {}).setdefault(source, score)
    merged = merge(proposals, 1000)
    for path, source in zip(paths_of(merged), merged.sources, strict=True):
        assert given_by[path][source] == max(given_by[path].values())


@given(several, st.integers(0, 40))
def test_merging_what_is_merged_changes_nothing(proposals: list[DraftTree], budget: int) -> None:
    merged = merge(proposals, budget)
    again = merge([merged], budget)
    assert sorted(paths_of(again)) == sorted(paths_of(merged))
    assert sorted(again.scores) == pytest.approx(sorted(merged.scores))


def test_the_likeliest_chain_stands_in_consecutive_places() -> None:
    tree = tree_of("a", (-1, 1, 0.4), (-1, 2, 0.6), (0, 3, 0.4), (1, 4, 0.1), (1, 5, 0.5), (4, 6, 0.5))
    assert paths_of(merge([tree], 9))[:3] == [(2,), (2, 5), (2, 5, 6)]


def test_two_drafters_that_agree_share_their_nodes() -> None:
    long = tree_of("long", (-1, 1, 0.8), (0, 2, 0.8), (1, 3, 0.8))
    merged = merge([long, tree_of("sure", (-1, 1, 0.9), (0, 9, 0.1))], 9)
    assert sorted(paths_of(merged)) == [(1,), (1, 2), (1, 2, 3), (1, 9)]
    assert merged.sources[0] == "sure"
    assert merged.scores[0] == pytest.approx(1 - 0.2 * 0.1)


def test_merging_nothing_gives_nothing() -> None:
    assert merge([], 5) == merge([DraftTree()], 5) == merge([chain([1, 2])], 0) == DraftTree()


def test_nodes_deeper_than_attention_reaches_are_dropped() -> None:
    too_deep = chain(range(MAX_DEPTH + 3))
    merged = merge([too_deep, chain([5, 6])], 1000)
    assert max(merged.depths) == MAX_DEPTH
    assert len(merged) == MAX_DEPTH + 2


def test_depths_count_from_the_pending_token() -> None:
    assert tree_of("a", (-1, 1, 1), (0, 2, 1), (-1, 3, 1), (1, 4, 1)).depths == (1, 2, 1, 3)


def test_adding_a_child_that_is_there_returns_the_old_one() -> None:
    builder = TreeBuilder("mine")
    first = builder.add(-1, 4, 0.5, 3)
    second = builder.add(first, 4, 0.25, 7)
    assert builder.add(-1, 4, 0.9, 0) == first
    assert len(builder) == 2
    assert builder.build() == DraftTree((4, 4), (-1, first), (0.5, 0.25), ("mine", "mine"), (3, 7))
    assert second == 1


@given(st.lists(st.tuples(st.integers(-1, 30), st.floats(0.0, 1.0)), min_size=1, max_size=12))
def test_the_best_chain_is_the_best_of_all(nodes: list[tuple[int, float]]) -> None:
    parents = [min(parent, i - 1) for i, (parent, _) in enumerate(nodes)]
    scores = tuple(score for _, score in nodes)
    union = TreeUnion(MAX_DEPTH)
    union.add(DraftTree(tuple(range(len(nodes))), tuple(parents), scores, ("a",) * len(nodes)), scores)
    union.weigh(lambda sources, probability: probability)

    def path(node: int) -> list[int]:
        return [*path(union.parents[node]), node] if node >= 0 else []

    worth = {node: sum(union.path_probabilities[i] for i in path(node)) for node in range(len(nodes))}
    chain = union.best_chain()
    assert chain == path(chain[-1])
    assert worth[chain[-1]] == pytest.approx(max(worth.values()))
    assert not any(parent == chain[-1] for parent in union.parents)  # to its end
