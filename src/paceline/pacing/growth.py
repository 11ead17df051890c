"""One step's drafts: proposals taken in as they come, and the part of them that is worth its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from paceline.engine.request import Drafter, StepOutcome
from paceline.engine.tree import DraftTree, TreeUnion
from paceline.pacing.base import Room
from paceline.pacing.beliefs import Beliefs


class Foresight(NamedTuple):
    """What some drafts foresee: the chance that the next token is among them, and the tokens that they may bring."""

    coverage: float
    tokens: float

    def left_of(self, worth: float) -> float:
        """Tokens that a drafter may add that by itself brings so many: where these miss, or beyond their ends."""
        return max(worth * (1.0 - self.coverage), worth - self.tokens)


NOTHING = Foresight(0.0, 0.0)


class Growth:
    """What the drafters proposed for one request in this step."""

    __slots__ = ("_beliefs", "_is_weighed", "_reach", "_union", "_worth", "proposed", "room")

    def __init__(self, beliefs: Beliefs, room: Room) -> None:
        self.room = room
        self._union = TreeUnion(room.depth)
        self._is_weighed = True
        self.proposed: dict[int, tuple[Drafter, DraftTree]] = {}  # id of the drafter -> its newest tree
        self._beliefs = beliefs
        self._reach: dict[int, list[float]] = {}
        self._worth: dict[int, float] = {}

    @property
    def union(self) -> TreeUnion:
        """All proposals as one, weighed when it is looked at: stages may follow each other unseen."""
        if not self._is_weighed:
            self._union.weigh(self._beliefs.agreed)
            self._is_weighed = True
        return self._union

    @property
    def foreseen(self) -> Foresight:
        """What the proposals so far foresee."""
        union = self.union
        roots = [reach for reach, parent in zip(union.reach, union.parents, strict=True) if parent < 0]
        return Foresight(sum(roots), sum(union.reach))

    def take(self, drafter: Drafter, tree: DraftTree) -> float:
        """Take in a drafter's tree; the tokens that its new nodes would bring, each by its own calibrated chances."""
        key = id(drafter)
        reach = self._reach.setdefault(key, [])
        start = len(reach)
        chances = self._beliefs.chances(drafter.name, tree, start)
        for node, chance in enumerate(chances, start):
            parent = tree.parents[node]
            reach.append(chance * reach[parent] if parent >= 0 else chance)
        self.proposed[key] = (drafter, tree)
        if chances:
            self._union.add(key, tree, chances)
            self._is_weighed = False
        gain = sum(reach[start:])
        self._worth[key] = self._worth.get(key, 0.0) + gain
        return gain

    def worth(self, drafter: Drafter) -> float:
        """Tokens that all nodes of a drafter's proposal together may be expected to bring."""
        return self._worth.get(id(drafter), 0.0)

    def judge(self, outcome: StepOutcome) -> None:
        """Learn from what the target said about every proposal."""
        tokens = [token.id for token in outcome.tokens]
        for drafter, tree in self.proposed.values():
            self._beliefs.judge(drafter.name, tree, tokens)
        self._judge_agreement(tokens)

    def _judge_agreement(self, tokens: Sequence[int]) -> None:
        union, above = self.union, -1
        for token in tokens:
            below = [i for i, parent in enumerate(union.parents) if parent == above]
            for node in below:
                if len(union.sources[node]) > 1:
                    self._beliefs.judge_agreement(union.sources[node], union.agreed[node], union.tokens[node] == token)
            above = next((i for i in below if union.tokens[i] == token), -2)
            if above < 0:
                return


class Pick(NamedTuple):
    """A node that may get a row: its reach, which growth it belongs to, and where it stands there."""

    reach: float
    growth: int
    node: int


def ranked(growths: Sequence[Growth]) -> list[Pick]:
    """All nodes of all requests, likeliest first, parents before children, no more of each than it has room for."""
    picks = [
        Pick(-reach, index, node)
        for index, growth in enumerate(growths)
        for node, reach in enumerate(growth.union.reach)
    ]
    picks.sort()
    taken = [0] * len(growths)
    kept = []
    for negative, index, node in picks:
        if taken[index] < growths[index].room.nodes:
            taken[index] += 1
            kept.append(Pick(-negative, index, node))
    return kept
