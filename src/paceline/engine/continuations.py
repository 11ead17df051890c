"""Continuations of a prompt that are given, not drafted: one tree, read a part at a time, shared beginnings once.

A row is read for each node that another one follows: what the model thought of those. Rows are read depth first. So
what has been read is the beginning of that order, and a forward repeats no more than the path to the first row that is
left. Where that path is long, its rows are committed, and the tree goes on behind them; a request goes back to where
the rest of its rows hang together once it has read all rows there. Knows nothing of requests, models or caches.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from paceline.engine.tree import DraftTree
from paceline.sampling.logprobs import thought_of

GIVEN = "given"  # the source of nodes
_ROOT = 0  # the node of the prompt's last token


@dataclass(frozen=True, slots=True)
class GivenLogprob:
    """What the model thought of a token of a continuation, after those before it; `logprob` in nats."""

    logprob: float
    is_likeliest: bool  # no other token was likelier, nor as likely with a lower id


class Continuations:
    """Token sequences behind one prompt, and what a model thought of them as far as they have been read.

    Args:
        continuations: at least one, each of at least one token.
        ends: tokens of which one may stand behind each continuation; their probability together is wanted there.
    """

    def __init__(self, continuations: Sequence[Sequence[int]], ends: Sequence[int] = ()) -> None:
        self._tokens, self._parents, self._depths = [-1], [-1], [0]
        self._children: list[dict[int, int]] = [{}]  # by token
        # In this order nodes are numbered depth first.
        last = {self._add(tokens) for tokens in sorted(map(tuple, continuations))}
        self._after = np.array(ends, np.int64)
        self._closed: dict[int, float] = dict.fromkeys(last if len(ends) else (), 0.0)  # by node, in nats
        self._ends = self._ends_of_subtrees()
        self._inner = [node for node, below in enumerate(self._children) if below or node in self._closed]
        self._num_read = 0  # of these
        self._thoughts: dict[int, GivenLogprob] = {}  # by node
        self._at = _ROOT  # whose token is pending: those before it are in the cache
        self._fed: list[int] = []  # nodes of the last tree

    @property
    def num_unread(self) -> int:
        """Rows that are left."""
        return len(self._inner) - self._num_read

    @property
    def least_rows(self) -> int:
        """Rows of a forward that reads one that is left."""
        return self._distance + 1

    def num_rows(self, max_rows: int) -> int:
        """Rows that the next forward should have: at most so many, but more where the path to the first is long."""
        repeated = self._distance  # with the pending token's
        return min(max(max_rows, 2 * repeated), repeated + self.num_unread)

    def tree(self, num_rows: int) -> DraftTree:
        """The next part: nodes behind the pending token, as many as so many rows allow; at least `least_rows`."""
        first, end = self._inner[self._num_read], self._ends[self._at]
        above = self._path(self._at, self._parents[first]) if first != self._at else []
        start = self._num_read + (first == self._at)
        room = num_rows - 1 - len(above)
        self._fed = above + list(takewhile(lambda node: node < end, self._inner[start : start + room]))
        place = {node: i for i, node in enumerate(self._fed)}
        parents = tuple(place.get(self._parents[node], -1) for node in self._fed)
        size = len(self._fed)
        return DraftTree(tuple(self._tokens[node] for node in self._fed), parents, (1.0,) * size, (GIVEN,) * size)

    def take(self, logits: NDArray[np.float32]) -> None:
        """Note what the last tree's rows (nodes + 1, V) say; row 0 is the pending token's."""
        for node, row in zip([self._at, *self._fed], logits, strict=True):
            if self.num_unread and node == self._inner[self._num_read]:
                self._note(node, row)
                self._num_read += 1

    def move(self, max_rows: int) -> Move | None:
        """Where to go on behind the last tree, for forwards of so many rows; None where nothing needs to be moved."""
        place = self._best_place(max_rows)
        if place == self._at:
            return None
        is_ahead = self._at <= place < self._ends[self._at]
        path = self._path(self._at if is_ahead else _ROOT, place)
        rows = [self._fed.index(node) for node in path[:-1]] if is_ahead else None
        self._at = place
        return Move(tuple(self._tokens[node] for node in path), rows)

    def of(self, continuation: Sequence[int]) -> list[GivenLogprob]:
        """What the model thought of each token of a continuation, all of which has been read."""
        return [self._thoughts[node] for node in self._nodes_of(continuation)]

    def end_of(self, continuation: Sequence[int]) -> float:
        """The log-probability that one of `ends` stands behind a continuation, in nats."""
        return self._closed[self._nodes_of(continuation)[-1]]

    def _nodes_of(self, continuation: Sequence[int]) -> list[int]:
        nodes = [_ROOT]
        for token in continuation:
            nodes.append(self._children[nodes[-1]][token])
        return nodes[1:]

    @property
    def _distance(self) -> int:
        return self._depths[self._inner[self._num_read]] - self._depths[self._at]

    def _best_place(self, max_rows: int) -> int:
        """The node behind which the next rows are best read: near enough, and above as many of them as can be.

        Near: the path to the first of them takes up half a forward at most. All rows that are left below such a node
        may lie below a further one, which saves the path between the two.
        """
        first, reach = self._inner[self._num_read], max_rows // 2
        is_near = first < self._ends[self._at] and self._distance <= reach
        near = self._at if is_near else self._above(first, max(self._depths[first] - reach, 0))
        last = self._inner[bisect_left(self._inner, self._ends[near]) - 1]
        while last >= self._ends[first]:
            first = self._parents[first]
        return first

    def _above(self, node: int, depth: int) -> int:
        while self._depths[node] > depth:
            node = self._parents[node]
        return node

    def _path(self, above: int, node: int) -> list[int]:
        """Nodes from behind `above` down to `node`."""
        path = []
        while node != above:
            path.append(node)
            node = self._parents[node]
        return path[::-1]

    def _note(self, node: int, row: NDArray[np.float32]) -> None:
        thought, likeliest = thought_of(row), int(row.argmax())
        for token, child in self._children[node].items():
            self._thoughts[child] = GivenLogprob(thought.logprob(token), token == likeliest)
        if node in self._closed:
            shifted = row[self._after].astype(np.float64) - thought.peak
            self._closed[node] = float(np.logaddexp.reduce(shifted)) - thought.log_total

    def _add(self, tokens: Sequence[int]) -> int:
        """Add a path; its last node."""
        node = _ROOT
        for token in tokens:
            if token not in self._children[node]:
                self._children[node][token] = len(self._tokens)
                self._tokens.append(token)
                self._parents.append(node)
                self._depths.append(self._depths[node] + 1)
                self._children.append({})
            node = self._children[node][token]
        return node

    def _ends_of_subtrees(self) -> list[int]:
        """Behind each node the first that does not lie below it."""
        ends = list(range(1, len(self._tokens) + 1))
        for node in range(len(ends) - 1, 0, -1):
            parent = self._parents[node]
            ends[parent] = max(ends[parent], ends[node])
        return ends


@dataclass(frozen=True, slots=True)
class Move:
    """Where a request's tree goes on: tokens that are committed for it."""

    tokens: tuple[int, ...]  # behind the pending one; behind the prompt, if `rows` is None
    rows: Sequence[int] | None  # nodes of the last tree that are kept; None: the request goes back, and is read again
