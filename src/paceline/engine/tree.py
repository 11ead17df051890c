"""Draft trees: built node by node, many proposals made one, and the best part of it cut out.

Knows nothing of requests, models or costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DraftTree:
    """A proposal for what follows the pending token, which is not itself a node.

    Nodes stand parents before children. An empty tree is plain decoding.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()  # index of each node's parent; -1 is the pending token
    scores: tuple[float, ...] = ()  # the drafter's estimate that the target, once at the parent, says the token
    sources: tuple[str, ...] = ()  # which drafter proposed the node
    buckets: tuple[int, ...] = ()  # what each estimate rests on: nodes of one bucket succeed alike; empty: their scores

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> tuple[int, ...]:
        """Each node's distance from the pending token, from 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return tuple(depths)


EMPTY = DraftTree()
MAX_DEPTH = 64  # batch-invariant attention keeps uncommitted keys in its last two tiles; see model/attention.py


class TreeBuilder:
    """Grows a draft tree node by node; adding a child that is already there returns the old one."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._scores: list[float] = []
        self._buckets: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, parent: int, token: int, score: float, bucket: int) -> int:
        """Index of the node for `token` under `parent` (-1 is the pending token); the rest as in `DraftTree`."""
        known = self._children.get((parent, token))
        if known is not None:
            return known
        self._tokens.append(token)
        self._parents.append(parent)
        self._scores.append(score)
        self._buckets.append(bucket)
        self._children[parent, token] = len(self._tokens) - 1
        return len(self._tokens) - 1

    def build(self) -> DraftTree:
        """The tree as it stands."""
        sources = (self._source,) * len(self._tokens)
        return DraftTree(tuple(self._tokens), tuple(self._parents), tuple(self._scores), sources, tuple(self._buckets))


Agreement = Callable[[Sequence[str], float], float]


class TreeUnion:
    """The proposals of several drafters for one request; identical paths are one node, with a combined probability.

    Nodes stand parents before children. A node's path probability is that of the target's path coming to it.
    """

    def __init__(self, max_depth: int = MAX_DEPTH) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.sources: list[list[str]] = []  # who proposed it, the most confident first
        self.probabilities: list[float] = []  # given the parent is reached
        self.agreed: list[float] = []  # the same, were those who proposed it independent: what `weigh` corrects
        self.path_probabilities: list[float] = []
        self._max_depth = max_depth
        self._best: list[float] = []  # the highest probability given to it
        self._misses: list[float] = []  # the probability that all who proposed it are wrong, were they independent
        self._index: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tree: DraftTree, probabilities: Sequence[float]) -> None:
        """Take up a drafter's tree; probabilities, one for each node, are given its parent."""
        places: list[int] = []  # where its nodes stand here; -1 if too deep
        for node, (parent, probability) in enumerate(zip(tree.parents, probabilities, strict=True)):
            above = places[parent] if parent >= 0 else -1
            depth = self.depths[above] + 1 if above >= 0 else 1
            if (parent >= 0 and above < 0) or depth > self._max_depth:
                places.append(-1)
            else:
                places.append(self._enter(above, tree.tokens[node], depth, tree.sources[node], probability))

    def weigh(self, agreed: Agreement) -> None:
        """Compute `probabilities` and `path_probabilities`.

        `agreed(sources, probability)` corrects the probability of a node that several have proposed. Those of
        siblings add up to at most 1.
        """
        self.agreed = [1.0 - miss for miss in self._misses]
        probabilities = self.agreed[:]
        totals: dict[int, float] = {}
        for node, parent in enumerate(self.parents):
            if len(self.sources[node]) > 1:
                probabilities[node] = agreed(self.sources[node], probabilities[node])
            totals[parent] = totals.get(parent, 0.0) + probabilities[node]
        paths: list[float] = []
        for node, parent in enumerate(self.parents):
            if totals[parent] > 1.0:
                probabilities[node] /= totals[parent]
            paths.append(probabilities[node] * paths[parent] if parent >= 0 else probabilities[node])
        self.probabilities, self.path_probabilities = probabilities, paths

    def cut(self, kept: Sequence[int]) -> DraftTree:
        """The draft tree of some nodes and all that stand above them, in depth-first order, likeliest first.

        So the likeliest chain lies in consecutive cache slots, where it need not be moved.
        """
        children: dict[int, list[int]] = {}
        for node in sorted(kept, key=lambda i: self.path_probabilities[i]):
            children.setdefault(self.parents[node], []).append(node)
        order: list[int] = []
        stack = children.get(-1, [])
        while stack:
            node = stack.pop()
            order.append(node)
            stack.extend(children.get(node, ()))
        place = {old: new for new, old in enumerate(order)}
        return DraftTree(
            tuple([self.tokens[i] for i in order]),
            tuple([place.get(self.parents[i], -1) for i in order]),
            tuple([self.probabilities[i] for i in order]),
            tuple([self.sources[i][0] for i in order]),
        )

    def _enter(self, above: int, token: int, depth: int, source: str, probability: float) -> int:
        index = self._index.setdefault((above, token), len(self.tokens))
        if index == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(above)
            self.depths.append(depth)
            self.sources.append([source])
            self._best.append(probability)
            self._misses.append(1.0 - probability)
            return index
        if source in self.sources[index]:
            return index
        self._misses[index] *= 1.0 - probability
        is_best = probability > self._best[index]
        self.sources[index].insert(0 if is_best else len(self.sources[index]), source)
        self._best[index] = max(probability, self._best[index])
        return index


def merge(trees: Sequence[DraftTree], budget: int, max_depth: int = MAX_DEPTH) -> DraftTree:
    """One tree of at most `budget` nodes, none deeper than `max_depth`: those likeliest by the drafters' own scores."""
    union = TreeUnion(max_depth)
    for tree in trees:
        union.add(tree, tree.scores)
    union.weigh(lambda sources, probability: probability)
    return union.cut(sorted(range(len(union)), key=lambda i: (-union.path_probabilities[i], i))[:budget])
