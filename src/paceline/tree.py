"""Draft trees: many proposals become one tree, under a budget of nodes.

Knows nothing of requests or models.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline.types import DraftTree

EMPTY = DraftTree()
MAX_DEPTH = 64  # canonical attention keeps uncommitted keys in its last two tiles; see target/attention.py


class TreeBuilder:
    """Grows a draft tree node by node; adding a child that is already there returns the old one."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens: list[int] = []
        self._parents: list[int] = []
        self._scores: list[float] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, parent: int, token: int, score: float) -> int:
        """Index of the node for `token` under `parent` (-1 is the pending token)."""
        known = self._children.get((parent, token))
        if known is not None:
            return known
        self._tokens.append(token)
        self._parents.append(parent)
        self._scores.append(score)
        self._children[parent, token] = len(self._tokens) - 1
        return len(self._tokens) - 1

    def build(self) -> DraftTree:
        """The tree as it stands."""
        sources = (self._source,) * len(self._tokens)
        return DraftTree(tuple(self._tokens), tuple(self._parents), tuple(self._scores), sources)


def merge(trees: Sequence[DraftTree], budget: int, max_depth: int = MAX_DEPTH) -> DraftTree:
    """One tree of at most `budget` nodes, none deeper than `max_depth`, likeliest first, in depth-first order.

    Identical paths become one node, which keeps the higher score and that drafter's name. A node's score
    never counts for more than its parent's, so that taking the best nodes always takes their ancestors.
    Depth-first order puts the likeliest chain into consecutive cache slots, where it need not be moved.
    """
    nodes = _union(trees, max_depth)
    kept = set(sorted(range(len(nodes)), key=lambda i: (-nodes[i].score, nodes[i].depth, i))[:budget])
    children: dict[int, list[int]] = {}
    for index in sorted(kept, key=lambda i: nodes[i].score):
        children.setdefault(nodes[index].parent, []).append(index)
    order: list[int] = []
    stack = children.get(-1, [])[:]
    while stack:
        index = stack.pop()
        order.append(index)
        stack.extend(children.get(index, ()))
    place = {old: new for new, old in enumerate(order)}
    return DraftTree(
        tuple(nodes[i].token for i in order),
        tuple(place.get(nodes[i].parent, -1) for i in order),
        tuple(nodes[i].score for i in order),
        tuple(nodes[i].source for i in order),
    )


class _Node:
    """A node of the union of several trees."""

    __slots__ = ("depth", "parent", "score", "source", "token")

    def __init__(self, token: int, parent: int, depth: int, score: float, source: str) -> None:
        self.token, self.parent, self.depth = token, parent, depth
        self.score, self.source = score, source


def _union(trees: Sequence[DraftTree], max_depth: int) -> list[_Node]:
    nodes: list[_Node] = []
    index_of: dict[tuple[int, int], int] = {}
    for tree in trees:
        place: list[int] = []  # where the tree's own nodes stand in the union; -1 if too deep
        for token, parent, score, source in zip(tree.tokens, tree.parents, tree.scores, tree.sources, strict=True):
            above = place[parent] if parent >= 0 else -1
            is_cut_off = parent >= 0 and above < 0
            if is_cut_off or (nodes[above].depth if above >= 0 else 0) >= max_depth:
                place.append(-1)
                continue
            place.append(_enter(nodes, index_of, above, token, score, source))
    _cap_by_parent(nodes)
    return nodes


def _enter(
    nodes: list[_Node],
    index_of: dict[tuple[int, int], int],
    above: int,
    token: int,
    score: float,
    source: str,
) -> int:
    index = index_of.setdefault((above, token), len(nodes))
    if index == len(nodes):
        depth = nodes[above].depth + 1 if above >= 0 else 1
        nodes.append(_Node(token, above, depth, score, source))
    elif score > nodes[index].score:
        nodes[index].score, nodes[index].source = score, source
    return index


def _cap_by_parent(nodes: list[_Node]) -> None:
    for node in nodes:  # parents stand before children
        if node.parent >= 0:
            node.score = min(node.score, nodes[node.parent].score)
