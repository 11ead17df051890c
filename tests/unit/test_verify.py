"""`verify`: the target's own tokens lead through the tree, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engine.tree import DraftTree
from paceline.engine.verify import Verdict, verify
from paceline.errors import RequestError
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.testing import chain

VOCAB = 7


def tree_of(*nodes: tuple[int, int]) -> DraftTree:
    """A tree of (parent, token)."""
    parents, tokens = zip(*nodes, strict=True)
    return DraftTree(tokens, parents, (0.5,) * len(nodes), ("test",) * len(nodes))


def walked(tree: DraftTree, wanted: list[int], vocab_size: int = VOCAB) -> tuple[Verdict, Sampler]:
    """The walk of a greedy target that says `wanted[0]` first, and `wanted[i + 1]` after node i."""
    law = Sampler(SamplingParams(), SamplerContext(vocab_size), [0], seed=0)
    return verify(tree, np.eye(vocab_size, dtype=np.float32)[wanted], law), law


CASES = {
    "an empty tree is plain decoding": (DraftTree(), [4], (), (4,)),
    "an accepted chain is followed by the bonus token": (
        chain([3, 1, 2]),
        [3, 1, 2, 6],
        (0, 1, 2),
        (3, 1, 2, 6),
    ),
    "a rejected token is replaced by the correction token": (chain([3, 1, 2]), [3, 5, 2, 6], (0,), (3, 5)),
    "nothing below a rejected token is accepted": (chain([3, 1, 2]), [4, 1, 2, 6], (), (4,)),
    "the later of two siblings is taken if it carries the token": (
        tree_of((-1, 2), (-1, 5), (0, 1), (1, 3)),
        [5, 0, 3, 0, 6],
        (1, 3),
        (5, 3, 6),
    ),
    "a node elsewhere that carries the token is not a child": (
        tree_of((-1, 2), (-1, 5), (0, 3)),
        [5, 3, 3, 3],
        (1,),
        (5, 3),
    ),
    "a token may be drafted again under itself": (chain([2, 2, 2]), [2, 2, 2, 2], (0, 1, 2), (2, 2, 2, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_walk(name: str) -> None:
    tree, wanted, path, tokens = CASES[name]
    verdict, _ = walked(tree, wanted)
    assert verdict.path == path
    assert tuple(choice.token for choice in verdict.sampled) == tokens


@st.composite
def trees(draw: st.DrawFn) -> DraftTree:
    """Trees of distinct siblings in any topological order."""
    nodes: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(0, 17))):
        node = (draw(st.integers(-1, len(nodes) - 1)), draw(st.integers(0, 2)))
        if node not in nodes:
            nodes.append(node)
    return tree_of(*nodes) if nodes else DraftTree()


@given(trees(), st.data())
def test_the_path_is_the_longest_that_the_target_says(tree: DraftTree, data: st.DataObject) -> None:
    size = len(tree) + 1
    wanted = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    verdict, law = walked(tree, wanted, vocab_size=3)
    tokens = [choice.token for choice in verdict.sampled]
    assert [wanted[node + 1] for node in (-1, *verdict.path)] == tokens
    assert [tree.tokens[node] for node in verdict.path] == tokens[:-1]
    assert [tree.parents[node] for node in verdict.path] == [-1, *verdict.path][: len(verdict.path)]
    last = verdict.path[-1] if verdict.path else -1
    assert (last, tokens[-1]) not in zip(tree.parents, tree.tokens, strict=True)
    assert law.noise.at(1 + len(tokens)) is not None  # the history has grown by exactly the choices
    assert law._tokens == [0, *tokens]


def test_the_law_sees_each_place_once_and_in_order() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(Sampler):
        def sample(self, logits):
            seen.append(tuple(self._tokens))
            return super().sample(logits)

    law = Watching(SamplingParams(), SamplerContext(VOCAB), [6, 0], seed=0)
    verify(chain([3, 1, 2]), np.eye(VOCAB, dtype=np.float32)[[3, 1, 5, 4]], law)
    assert seen == [(6, 0), (6, 0, 3), (6, 0, 3, 1)]


class Failing(Sampler):
    """A greedy law that has nothing to say from the third place on."""

    def sample(self, logits):
        if len(self._tokens) > 2:
            raise RequestError("nothing is allowed")
        return super().sample(logits)


def test_a_law_that_fails_behind_an_accepted_draft_fails_at_the_next_steps_first_place() -> None:
    """What came before may end the request: plain decoding would not have asked any further."""
    law = Failing(SamplingParams(), SamplerContext(VOCAB), [0], seed=0)
    logits = np.eye(VOCAB, dtype=np.float32)[[3, 1, 2, 6]]
    found = verify(chain([3, 1, 2]), logits, law)
    assert (found.path, tuple(choice.token for choice in found.sampled)) == ((0,), (3, 1))
    assert law._tokens == [0, 3, 1]
    with pytest.raises(RequestError, match="nothing is allowed"):
        verify(chain([2]), logits[2:], law)
