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
    """The proposals of several drafters for one request; identical paths are one node, with a combined chance.

    Nodes stand parents before children. `reach` is the chance that the target's path comes to a node.
    """

    def __init__(self, max_depth: int = MAX_DEPTH) -> None:
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.sources: list[list[str]] = []  # who proposed it, the most confident first
        self.chances: list[float] = []  # given the parent is reached
        self.agreed: list[float] = []  # the same, were those who proposed it independent: what `weigh` corrects
        self.reach: list[float] = []
        self._max_depth = max_depth
        self._best: list[float] = []  # the highest chance given to it
        self._misses: list[float] = []  # the chance that all who proposed it are wrong, were they independent
        self._index: dict[tuple[int, int], int] = {}
        self._places: dict[int, list[int]] = {}  # drafter -> where its nodes stand here; -1 if too deep

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, drafter: int, tree: DraftTree, chances: Sequence[float]) -> None:
        """Take up what is new in a drafter's tree; chances, one for each new node, are given its parent."""
        places = self._places.setdefault(drafter, [])
        for node, chance in enumerate(chances, len(places)):
            parent = tree.parents[node]
            above = places[parent] if parent >= 0 else -1
            depth = self.depths[above] + 1 if above >= 0 else 1
            if (parent >= 0 and above < 0) or depth > self._max_depth:
                places.append(-1)
            else:
                places.append(self._enter(above, tree.tokens[node], depth, tree.sources[node], chance))

    def weigh(self, agreed: Agreement) -> None:
        """Compute `chances` and `reach`.

        `agreed(sources, chance)` corrects the chance of a node that several have proposed. Chances of siblings add
        up to at most 1.
        """
        self.agreed = [1.0 - miss for miss in self._misses]
        chances = self.agreed[:]
        totals: dict[int, float] = {}
        for node, parent in enumerate(self.parents):
            if len(self.sources[node]) > 1:
                chances[node] = agreed(self.sources[node], chances[node])
            totals[parent] = totals.get(parent, 0.0) + chances[node]
        reach: list[float] = []
        for node, parent in enumerate(self.parents):
            if totals[parent] > 1.0:
                chances[node] /= totals[parent]
            reach.append(chances[node] * reach[parent] if parent >= 0 else chances[node])
        self.chances, self.reach = chances, reach

    def cut(self, kept: Sequence[int]) -> DraftTree:
        """The draft tree of some nodes and all that stand above them, in depth-first order, likeliest first.

        So the likeliest chain lies in consecutive cache slots, where it need not be moved.
        """
        children: dict[int, list[int]] = {}
        for node in sorted(kept, key=lambda i: self.reach[i]):
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
            tuple([self.chances[i] for i in order]),
            tuple([self.sources[i][0] for i in order]),
        )

    def _enter(self, above: int, token: int, depth: int, source: str, chance: float) -> int:
        index = self._index.setdefault((above, token), len(self.tokens))
        if index == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(above)
            self.depths.append(depth)
            self.sources.append([source])
            self._best.append(chance)
            self._misses.append(1.0 - chance)
            return index
        if source in self.sources[index]:
            return index
        self._misses[index] *= 1.0 - chance
        is_best = chance > self._best[index]
        self.sources[index].insert(0 if is_best else len(self.sources[index]), source)
        self._best[index] = max(chance, self._best[index])
        return index


def merge(trees: Sequence[DraftTree], budget: int, max_depth: int = MAX_DEPTH) -> DraftTree:
    """One tree of at most `budget` nodes, none deeper than `max_depth`: those likeliest by the drafters' own scores."""
    union = TreeUnion(max_depth)
    for drafter, tree in enumerate(trees):
        union.add(drafter, tree, tree.scores)
    union.weigh(lambda sources, chance: chance)
    return union.cut(sorted(range(len(union)), key=lambda i: (-union.reach[i], i))[:budget])
