"""How often drafts are right, counted by drafter and by what their scores rest on.

Drafts are judged by every emitted token, rows or none: full information in place of exploration, as in HedgeSpec (ICLR
2026).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paceline.engine.tree import DraftTree

Key = tuple[str, int]  # drafter, bucket

_SCORE_WEIGHT = 4.0  # trials that a drafter's own score counts for
_SHARED_WEIGHT = 8.0  # trials that other requests' experience counts for
SHARED_MEMORY = 512.0  # trials after which a trial has lost two thirds of its weight
REQUEST_MEMORY = 24.0  # the same within a request: a change of topic is learnt within tens of tokens
_SCALE_WEIGHT = 4.0  # successes, all of them expected, that a drafter as a whole starts with
_OWN_SCALE_WEIGHT = 0.5  # the same within a request: texts differ more than drafters do
ALL = -1  # in place of a bucket: the drafter as a whole; (expected successes, successes) in place of trials
_SCORE_BUCKETS = 10  # buckets of a tree that brings none


class SuccessCounts:
    """Trials and successes by (drafter, bucket), and probabilities from them: beta-binomial estimates.

    A bucket is what a node's score rests on: nodes of one bucket succeed alike. Where a bucket has seen little, what is
    known of the drafter as a whole stands in: its successes over those that were expected. Old trials lose weight as
    new ones come. A request's counts stand on the shared ones: those are their prior, and learn what they learn.
    """

    __slots__ = ("_keep", "_prior_weight", "_scale_weight", "_shared", "_table")

    def __init__(self, memory: float, shared: SuccessCounts | None = None) -> None:
        self._keep = 1.0 - 1.0 / memory
        self._prior_weight = _SCORE_WEIGHT if shared is None else _SHARED_WEIGHT
        self._scale_weight = _SCALE_WEIGHT if shared is None else _OWN_SCALE_WEIGHT
        self._shared = shared
        self._table: dict[Key, tuple[float, float]] = {}

    def of(self, key: Key) -> tuple[float, float]:
        """(trials, successes)."""
        return self._table.get(key, (0.0, 0.0))

    def add(self, key: Key, is_right: bool) -> None:
        """One more trial."""
        self._count(key, 1.0, is_right)
        if self._shared is not None:
            self._shared.add(key, is_right)

    def put(self, key: Key, trials: float, successes: float) -> None:
        """Take up what was counted elsewhere."""
        self._table[key] = (trials, successes)

    def items(self) -> Iterator[tuple[Key, tuple[float, float]]]:
        """All keys, each with its (trials, successes)."""
        yield from self._table.items()

    def probability(self, key: Key, score: float) -> float:
        """That a node of this drafter and bucket is right, given its parent is; `score` is the drafter's."""
        prior = self._prior(key, score) * self._scale(key[0])
        trials, successes = self._table.get(key, (0.0, 0.0))
        return (self._prior_weight * min(prior, 1.0) + successes) / (self._prior_weight + trials)

    def probabilities(self, name: str, tree: DraftTree) -> list[float]:
        """Those of a drafter's nodes: `probability` of each, written out, since there are many at every step."""
        table, shared = self._table, self._shared._table if self._shared is not None else {}
        scale = self._scale(name)
        shared_scale = self._shared._scale(name) if self._shared is not None else 1.0
        weight = self._prior_weight
        found = []
        for bucket, score in zip(buckets_of(tree), tree.scores, strict=True):
            key = (name, bucket)
            prior = min(score * shared_scale, 1.0)
            if key in shared:
                trials, successes = shared[key]
                prior = (_SCORE_WEIGHT * prior + successes) / (_SCORE_WEIGHT + trials)
            prior = min(prior * scale, 1.0)
            if key in table:
                trials, successes = table[key]
                prior = (weight * prior + successes) / (weight + trials)
            found.append(prior)
        return found

    def learn(self, name: str, bucket: int, score: float, is_right: bool) -> None:
        """One more trial of a drafter's node, for the bucket and for the drafter as a whole."""
        self._count((name, ALL), self._prior((name, bucket), score), is_right)
        self._count((name, bucket), 1.0, is_right)
        if self._shared is not None:
            self._shared.learn(name, bucket, score, is_right)

    def _count(self, key: Key, weight: float, is_right: bool) -> None:
        trials, successes = self._table.get(key, (0.0, 0.0))
        self._table[key] = (trials * self._keep + weight, successes * self._keep + is_right)

    def _prior(self, key: Key, score: float) -> float:
        return score if self._shared is None else self._shared.probability(key, score)

    def _scale(self, name: str) -> float:
        """Successes of a drafter where one was expected, whatever the bucket."""
        expected, successes = self._table.get((name, ALL), (0.0, 0.0))
        return (self._scale_weight + successes) / (self._scale_weight + expected)

    def agreed(self, sources: Sequence[str], independent: float) -> float:
        """That of a node that several drafters proposed, from what it would be were they independent."""
        return self.probability(_together(sources, independent), independent)

    def judge(self, name: str, tree: DraftTree, tokens: Sequence[int]) -> int:
        """Learn from what the target said instead or as well; how many of its tokens the tree foretold in a row."""
        buckets = buckets_of(tree)
        num_right = 0
        for node, is_right in evaluated(tree.tokens, tree.parents, tokens):
            self.learn(name, buckets[node], tree.scores[node], is_right)
            num_right += is_right
        return num_right

    def judge_agreement(self, sources: Sequence[str], independent: float, is_right: bool) -> None:
        """Learn whether a node that several proposed was right; `independent` as in `agreed`."""
        self.add(_together(sources, independent), is_right)


def buckets_of(tree: DraftTree) -> Sequence[int]:
    """A tree's buckets, or tenths of its scores."""
    return tree.buckets or [int(score * (_SCORE_BUCKETS - 1e-9)) for score in tree.scores]


def _together(sources: Sequence[str], independent: float) -> Key:
    return "+".join(sorted(sources)), int(independent * (_SCORE_BUCKETS - 1e-9))


def evaluated(tokens: Sequence[int], parents: Sequence[int], said: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """The nodes of a tree that stand where the target came by, as it said its tokens, and whether each was right."""
    above = -1
    for token in said:
        right = -1
        for node in range(above + 1, len(parents)):  # children stand behind their parents
            if parents[node] == above:
                yield node, tokens[node] == token
                if tokens[node] == token:
                    right = node
        if right < 0:
            return
        above = right
