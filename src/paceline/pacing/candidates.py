"""What drafters propose for one request in one step, as one tree, with the probabilities that counts give it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from paceline.engine.request import Drafter
from paceline.engine.tree import DraftTree, TreeUnion
from paceline.pacing.success_counts import SuccessCounts, evaluated

_SEEN = 0.9  # the weight of what came of a proposal, beside what was expected of it: that is smoother, and lags

Node = tuple[float, int, int]  # path probability, index of the request, node of its candidates


class Proposal(NamedTuple):
    """A drafter's tree, and the tokens that it may be expected to bring: by counts, and by the drafter's own scores."""

    drafter: Drafter
    tree: DraftTree
    expected: float
    own: float


class Verdict(NamedTuple):
    """What a proposal was worth: tokens, by what was said and by what was expected; and by its own scores."""

    drafter: Drafter
    tokens: float
    own: float


class Candidates:
    """The proposals for a request, and what they may be expected to bring.

    Args:
        counts: how often such proposals have been right.
        max_nodes: that may get rows.
        max_depth: of the tree.
    """

    __slots__ = ("_counts", "_coverage", "_expected", "_is_weighed", "_proposals", "_union", "max_depth", "max_nodes")

    def __init__(self, counts: SuccessCounts, max_nodes: int, max_depth: int) -> None:
        self.max_nodes = max_nodes if max_depth > 0 else 0
        self.max_depth = max_depth
        self._counts = counts
        self._union = TreeUnion(max_depth)
        self._is_weighed = True
        self._proposals: list[Proposal] = []
        self._expected = 0.0  # tokens, by whoever expects most
        self._coverage = 0.0

    @property
    def union(self) -> TreeUnion:
        """All proposals as one, weighed when it is looked at."""
        if not self._is_weighed:
            self._union.weigh(self._counts.agreed)
            self._is_weighed = True
        return self._union

    def new_tokens(self, expected: float) -> float:
        """Of tokens that a drafter is expected to bring, those not yet here: where these miss, or beyond their ends."""
        return max(expected * (1.0 - self._coverage), expected - self._expected)

    def add(self, drafter: Drafter, tree: DraftTree) -> None:
        """Take in a proposal."""
        if not tree.tokens:
            self._proposals.append(Proposal(drafter, tree, 0.0, 0.0))
            return
        probabilities = self._counts.probabilities(drafter.name, tree)
        self._union.add(tree, probabilities)
        self._is_weighed = False
        expected, first = _expected_tokens(tree.parents, probabilities)
        own, _ = _expected_tokens(tree.parents, tree.scores)
        # As if they missed independently: good enough to say who else is worth asking.
        self._coverage = 1.0 - (1.0 - self._coverage) * (1.0 - min(first, 1.0))
        self._expected = max(self._expected, expected)
        self._proposals.append(Proposal(drafter, tree, expected, own))

    def judge(self, said: Sequence[int]) -> Iterator[Verdict]:
        """Learn from the tokens that the target said about every proposal, and about what several agreed on."""
        for proposal in self._proposals:
            num_right = self._counts.judge(proposal.drafter.name, proposal.tree, said)
            # Who foretold all that was said might have foretold more.
            seen = max(num_right, proposal.expected) if num_right == len(said) else num_right
            tokens = _SEEN * seen + (1.0 - _SEEN) * proposal.expected
            yield Verdict(proposal.drafter, tokens, proposal.own)
        if len(self._proposals) < 2:
            return  # nobody to agree with
        union = self._union
        for node, is_right in evaluated(union.tokens, union.parents, said):
            if len(union.sources[node]) > 1:
                self._counts.judge_agreement(union.sources[node], union.agreed[node], is_right)


def _expected_tokens(parents: Sequence[int], probabilities: Sequence[float]) -> tuple[float, float]:
    """The sum of path probabilities, and that of the first level alone."""
    paths: list[float] = []
    first = 0.0
    for parent, probability in zip(parents, probabilities, strict=True):
        if parent >= 0:
            paths.append(probability * paths[parent])
        else:
            paths.append(probability)
            first += probability
    return sum(paths), first


def ranked(candidates: Sequence[Candidates], is_chain: bool = False) -> list[Node]:
    """The nodes of all requests, likeliest first, parents before children, no more of each than it may have.

    Where drafts must be a chain, of each request that one alone which should bring most tokens.
    """
    nodes = [
        (-one.union.path_probabilities[node], index, node)
        for index, one in enumerate(candidates)
        for node in (one.union.best_chain() if is_chain else range(len(one.union)))
    ]
    nodes.sort()
    taken = [0] * len(candidates)
    kept = []
    for negative, index, node in nodes:
        if taken[index] < candidates[index].max_nodes:
            taken[index] += 1
            kept.append((-negative, index, node))
    return kept
