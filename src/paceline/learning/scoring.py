"""What a transition makes of anchors: laws over candidates, overlaps with the target's, tokens that would be accepted.

Shapes are those of `Batch`. A candidate's score is its logit and what the transition adds to it, over the temperature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from paceline.heads.weights import Floats, Weights
from paceline.learning.anchors import Batch
from paceline.learning.walking import walk
from paceline.learning.weights import Delta, Ids


class Table:
    """A transition's table with what was learnt of its rows laid over it."""

    def __init__(self, base: Floats, ids: Ids, rows: Floats) -> None:
        self.base, self.rows = base, rows
        self.places = np.full(len(base), -1, np.int32)  # of each id in `rows`
        self.places[ids] = np.arange(len(ids), dtype=np.int32)

    def of(self, ids: Ids) -> Floats:
        """Rows (..., r) of ids (...): a copy."""
        found, places = self.base[ids], self.places[ids]
        is_learnt = places >= 0
        found[is_learnt] += self.rows[places[is_learnt]]
        return found


class Overlay:
    """A transition with a delta laid over it; nothing is copied but what was learnt."""

    def __init__(self, own: Weights, delta: Delta) -> None:
        self.first = Table(own.w1, delta.first_ids, delta.first_rows)
        self.second = Table(own.w2, delta.second_ids, delta.second_rows)
        self.joint = own.joint + delta.joint

    def scores(self, batch: Batch) -> Floats:
        """Scores (N, B, K)."""
        vectors = walk(self.joint, self.first.of(batch.before), batch.features).vectors
        return scores(batch, self.second.of(batch.ids), vectors)


def scores(batch: Batch, rows: Floats, vectors: Floats) -> Floats:
    """Scores (N, B, K) from the candidates' rows (N, B, K, r) and the paths' vectors (N, B, r)."""
    return np.asarray((batch.logits + np.einsum("nbkr,nbr->nbk", rows, vectors)) / batch.temperature)


def law(batch: Batch, score: Floats) -> Floats:
    """The head's law (N, B, K + 1): of the candidates, and last of all other tokens together."""
    whole = np.concatenate([score, batch.rest[..., None]], -1)
    powers = np.exp(whole - whole.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def target_law(batch: Batch) -> Floats:
    """The target's law over the same (N, B, K + 1)."""
    rest = np.maximum(1 - batch.target.sum(-1, keepdims=True), 0)
    return np.concatenate([batch.target, rest], -1)


def overlaps(batch: Batch, score: Floats) -> Floats:
    """What both laws share among the candidates, slot by slot (N, B), from 0 to 1; 0 in padding."""
    shared = np.minimum(law(batch, score)[..., :-1], batch.target).sum(-1)
    return np.asarray(np.minimum(shared, 1) * batch.is_slot)


def accepted(batch: Batch, score: Floats) -> NDArray[np.int64]:
    """Tokens (N,) that a chain of the best drafts would have brought on the path that the target went."""
    is_right = ((score + batch.noise).argmax(-1) == batch.came) & batch.is_slot
    return np.asarray(np.logical_and.accumulate(is_right, -1).sum(-1))
