"""What each drafter is worth on this text: beta-binomial estimates, judged by every emitted token.

A drafter gives each node a score and a bucket: what the score rests on. Nodes of one bucket succeed alike, so
successes are counted by (drafter, bucket): shared by all requests, which start from there, and per request, which
forgets fast. Full information instead of exploration, as in HedgeSpec (ICLR 2026): whatever a drafter proposed is
judged, rows or none.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline.engine.tree import DraftTree

Key = tuple[str, int]

_OWN_WEIGHT = 4.0  # trials that a drafter's own score counts for
_SHARED_WEIGHT = 8.0  # trials that other requests' experience counts for
SHARED_MEMORY = 512.0  # trials after which a trial has lost two thirds of its weight
REQUEST_MEMORY = 24.0  # the same within a request: a change of topic is learnt within tens of tokens
_SCORE_BUCKETS = 10  # buckets of a tree that brings none


class Counts:
    """Weighted trials and successes by (drafter, bucket); old ones lose weight as new ones come."""

    __slots__ = ("_keep", "_table")

    def __init__(self, memory: float) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._table: dict[Key, tuple[float, float]] = {}

    def of(self, key: Key) -> tuple[float, float]:
        """(trials, successes)."""
        return self._table.get(key, (0.0, 0.0))

    def add(self, key: Key, is_right: bool) -> None:
        """One more trial."""
        trials, successes = self._table.get(key, (0.0, 0.0))
        self._table[key] = (trials * self._keep + 1.0, successes * self._keep + is_right)


class Beliefs:
    """One request's estimates on top of the shared ones."""

    __slots__ = ("_request", "_shared")

    def __init__(self, shared: Counts) -> None:
        self._shared = shared
        self._request = Counts(REQUEST_MEMORY)

    def chance(self, key: Key, score: float) -> float:
        """The chance that a node of this drafter and bucket is right, given its parent is; `score` is the drafter's."""
        trials, successes = self._shared.of(key)
        prior = (_OWN_WEIGHT * score + successes) / (_OWN_WEIGHT + trials)
        trials, successes = self._request.of(key)
        return (_SHARED_WEIGHT * prior + successes) / (_SHARED_WEIGHT + trials)

    def chances(self, name: str, tree: DraftTree, start: int) -> list[float]:
        """The chances of a drafter's nodes from `start` on."""
        buckets = buckets_of(tree)
        return [self.chance((name, buckets[i]), tree.scores[i]) for i in range(start, len(tree))]

    def agreed(self, sources: Sequence[str], chance: float) -> float:
        """The chance of a node that several drafters proposed, from what it would be were they independent."""
        return self.chance(_together(sources, chance), chance)

    def judge(self, name: str, tree: DraftTree, tokens: Sequence[int]) -> int:
        """Learn from what the target said instead or as well; the length of the tree's path that it followed."""
        buckets = buckets_of(tree)
        above, length = -1, 0
        for token in tokens:
            below = [i for i, parent in enumerate(tree.parents) if parent == above]
            for node in below:
                self._add((name, buckets[node]), tree.tokens[node] == token)
            above = next((i for i in below if tree.tokens[i] == token), -2)
            if above < 0:
                break
            length += 1
        return length

    def judge_agreement(self, sources: Sequence[str], chance: float, is_right: bool) -> None:
        """Learn whether a node that several proposed was right; `chance` as in `agreed`."""
        self._add(_together(sources, chance), is_right)

    def _add(self, key: Key, is_right: bool) -> None:
        self._shared.add(key, is_right)
        self._request.add(key, is_right)


def buckets_of(tree: DraftTree) -> Sequence[int]:
    """A tree's buckets, or tenths of its scores."""
    return tree.buckets or [int(score * (_SCORE_BUCKETS - 1e-9)) for score in tree.scores]


def _together(sources: Sequence[str], chance: float) -> Key:
    return "+".join(sorted(sources)), int(chance * (_SCORE_BUCKETS - 1e-9))
