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

    def first(self, size: int) -> DraftTree:
        """The tree of its first nodes: it itself if it has no more."""
        if size >= len(self):
            return self
        fields = (self.tokens, self.parents, self.scores, self.sources, self.buckets)
        return DraftTree(*(field[:size] for field in fields))  # type: ignore[arg-type]


EMPTY = DraftTree()
MAX_NODES = 63  # of one request in a step; with the pending token its rows are those of a page
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
_TOO_DEEP = -2  # in place of a node's index


class TreeUnion:
    """The proposals of several drafters for one request; identical paths are one node, with a combined probability.

    Nodes stand parents before children. A node's path probability is that of the target's path coming to it.
    """

    def __init__(self, max_depth: int = MAX_DEPTH) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.sources: list[list[str]] = []  # who proposed it, the most confident first
        self.agreed: list[float] = []  # given the parent is reached, were those who proposed it independent
        self.probabilities: list[float] = []  # the same, corrected by `weigh`
        self.path_probabilities: list[float] = []
        self._max_depth = max_depth
        self._best: dict[int, float] = {}  # of those that several proposed, the highest probability given
        self._index: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tree: DraftTree, probabilities: Sequence[float]) -> None:
        """Take up what is new in a drafter's tree; probabilities, one for each node, are given its parent."""
        places: list[int] = []  # where its nodes stand here
        index = self._index
        for node, parent in enumerate(tree.parents):
            above = places[parent] if parent >= 0 else -1
            key = (above, tree.tokens[node])
            known = index.get(key)
            depth = self.depths[above] + 1 if above >= 0 else 1
            if known is not None:
                self._agree(known, tree.sources[node], probabilities[node])
            elif above == _TOO_DEEP or depth > self._max_depth:
                known = _TOO_DEEP
            else:
                known = index[key] = len(self.tokens)
                self.tokens.append(key[1])
                self.parents.append(above)
                self.depths.append(depth)
                self.sources.append([tree.sources[node]])
                self.agreed.append(probabilities[node])
            places.append(known)

    def weigh(self, correct: Agreement) -> None:
        """Compute `probabilities` and `path_probabilities`.

        `correct(sources, probability)` is the probability of a node that several have proposed, from what it would be
        were they independent. Those of siblings add up to at most 1.
        """
        probabilities = self.agreed[:]
        totals = [0.0] * (len(probabilities) + 1)  # by parent; the last is the pending token's
        for node, parent in enumerate(self.parents):
            if len(self.sources[node]) > 1:
                probabilities[node] = correct(self.sources[node], probabilities[node])
            totals[parent] += probabilities[node]
        paths: list[float] = []
        for node, parent in enumerate(self.parents):
            if totals[parent] > 1.0:
                probabilities[node] /= totals[parent]
            paths.append(probabilities[node] * paths[parent] if parent >= 0 else probabilities[node])
        self.probabilities, self.path_probabilities = probabilities, paths

    def best_chain(self) -> list[int]:
        """The path from the root that should bring most tokens: the sum of its path probabilities is largest."""
        brings = self.path_probabilities[:]  # tokens: a node and the best below it
        best = [-1] * (len(brings) + 1)  # child by parent; the last is the pending token's
        for node in range(len(brings) - 1, -1, -1):  # children stand behind their parents
            if best[node] >= 0:
                brings[node] += brings[best[node]]
            rival = best[self.parents[node]]
            if rival < 0 or brings[node] >= brings[rival]:  # of equals the one proposed first
                best[self.parents[node]] = node
        chain, node = [], best[-1]
        while node >= 0:
            chain.append(node)
            node = best[node]
        return chain

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

    def _agree(self, node: int, source: str, probability: float) -> None:
        sources = self.sources[node]
        if source not in sources:
            best = self._best.get(node, self.agreed[node])
            sources.insert(0 if probability > best else len(sources), source)
            self._best[node] = max(probability, best)
            self.agreed[node] = 1.0 - (1.0 - self.agreed[node]) * (1.0 - probability)


def merge(trees: Sequence[DraftTree], budget: int, max_depth: int = MAX_DEPTH) -> DraftTree:
    """One tree of at most `budget` nodes, none deeper than `max_depth`: those likeliest by the drafters' own scores."""
    union = TreeUnion(max_depth)
    for tree in trees:
        union.add(tree, tree.scores)
    union.weigh(lambda sources, probability: probability)
    return union.cut(sorted(range(len(union)), key=lambda i: (-union.path_probabilities[i], i))[:budget])
