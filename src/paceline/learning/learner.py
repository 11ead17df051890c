"""The learner of a transition: small steps on what was seen lately and on a choice of what was seen before.

Rows that no anchor of a batch has are not touched, so that a step takes a millisecond or two whatever the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paceline.heads.weights import Floats, Weights
from paceline.learning.anchors import Anchor, Batch, Memory
from paceline.learning.scoring import Overlay, Table, law, scores, target_law
from paceline.learning.walking import walk
from paceline.learning.weights import Delta, Ids

MEMORY_BYTES = 4 << 20  # of anchors
TABLE_BYTES = 2 << 20  # of what is learnt of a table, at most; rows that it has no room for stay the head's own

_ANCHORS = 8  # of a step
_PATIENCE = 0.003  # seconds that must be left for a step, even if the last one took longer
_USES = 8.0  # of an anchor, on average: what is learnt from it then is learnt
_RATE = 1.0  # of the first step of a row: what it changes a score by, in usual sizes of what a transition adds
_FADING = 0.98  # of a row's squared gradients with each step: some fifty of them set its pace
_PULL = 0.002  # of each step towards the weights that were promoted last
_ETA = 3.0  # how soon, with the overlap, the distance itself takes the place of the divergence in the loss
_DEPTH_FADING = 0.8  # of a slot's weight with each slot before it: the fewer drafts get there


class Learner:
    """Learns what may become a candidate. It never touches the weights that draft.

    Args:
        own: the head's own weights.
        num_bytes: of anchors that are kept to learn from.
        seed: of the choice among them: the same anchors and as many steps give the same weights.
    """

    def __init__(self, own: Weights, num_bytes: int = MEMORY_BYTES, seed: int = 0) -> None:
        self._own = own
        self._memory = Memory(num_bytes, seed)
        self._num_seen, self._num_used = 0, 0.0
        self._seconds = 0.0  # of the last step
        self.start_from(Delta.nothing(own))

    @property
    def is_hungry(self) -> bool:
        """Whether there is something that it has not learnt enough from."""
        return len(self._memory) > 0 and self._num_used < _USES * self._num_seen

    def observe(self, anchor: Anchor) -> None:
        """Have a sound anchor to learn from."""
        self._memory.add(anchor)
        self._num_seen += 1

    def start_from(self, delta: Delta) -> None:
        """Begin at weights and be pulled back to them."""
        overlay = Overlay(self._own, delta)
        self._first, self._second = _Learnt(overlay.first), _Learnt(overlay.second)
        self._joint, self._joint_speed = overlay.joint, np.zeros(len(overlay.joint), np.float32)
        self.settle(delta)

    def settle(self, delta: Delta) -> None:
        """Be pulled towards weights from now on: those that draft."""
        self._first.settle(delta.first_ids, delta.first_rows)
        self._second.settle(delta.second_ids, delta.second_rows)
        self._settled_joint = self._own.joint + delta.joint

    def delta(self) -> Delta:
        """What has been learnt so far: a copy."""
        return Delta(*self._first.learnt(), *self._second.learnt(), self._joint - self._own.joint)

    def work(self, until: float, clock: Callable[[], float]) -> int:
        """Learn as long as the next step should end by `until` of the clock; how many steps that were."""
        steps = 0
        while self.is_hungry and (start := clock()) + min(self._seconds, _PATIENCE) < until:
            self.step()
            self._seconds, steps = clock() - start, steps + 1
        return steps

    def step(self) -> None:
        """One step on a batch. One whose gradients are no numbers is not taken."""
        batch = Batch.of(self._memory.draw(_ANCHORS))
        self._num_used += _ANCHORS
        path = walk(self._joint, self._first.of(batch.before), batch.features)
        rows = self._second.of(batch.ids)
        _, of_scores = loss(batch, scores(batch, rows, path.vectors))
        added = of_scores / batch.temperature
        of_embedded, of_joint = path.back(np.einsum("nbk,nbkr->nbr", added, rows))
        of_rows = added[..., None] * path.vectors[:, :, None]
        if not all(np.isfinite(one).all() for one in (of_embedded, of_joint, of_rows)):
            return
        self._first.learn(batch.before, of_embedded)
        self._second.learn(batch.ids, of_rows)
        _descend(self._joint, of_joint, self._joint_speed, _pace(self._own.joint))
        self._joint -= _PULL * (self._joint - self._settled_joint)


class _Learnt(Table):
    """A table whose rows are learnt, those that come up, as long as there is room."""

    def __init__(self, table: Table) -> None:
        ids = np.flatnonzero(table.places >= 0)
        super().__init__(table.base, ids, table.rows[table.places[ids]])
        self._capacity = max(TABLE_BYTES // (4 * table.base.shape[1]), 1)
        self._pace = _pace(table.base)
        self._ids = ids
        self._settled, self._speed = np.zeros_like(self.rows), np.zeros(len(ids), np.float32)

    def learn(self, ids: Ids, gradients: Floats) -> None:
        """Go down the gradients (..., r) of rows by their ids (...), which may come several times."""
        ids, gradients = _summed(ids.reshape(-1), gradients.reshape(-1, gradients.shape[-1]))
        self._grow(ids[self.places[ids] < 0])
        places = self.places[ids]
        places, gradients = places[places >= 0], gradients[places >= 0]
        rows, speed = self.rows[places], self._speed[places]
        _descend(rows, gradients, speed, self._pace)
        self.rows[places] = rows - _PULL * (rows - self._settled[places])
        self._speed[places] = speed

    def settle(self, ids: Ids, rows: Floats) -> None:
        """Be pulled towards rows from now on, and in all others towards the head's own."""
        self._settled = np.zeros_like(self.rows)
        places = self.places[ids]
        self._settled[places[places >= 0]] = rows[places >= 0]

    def learnt(self) -> tuple[Ids, Floats]:
        """Ids, and what was learnt of their rows: copies."""
        return self._ids.copy(), self.rows.copy()

    def _grow(self, ids: Ids) -> None:
        ids = ids[: self._capacity - len(self._ids)]
        if not len(ids):
            return
        self.places[ids] = np.arange(len(self._ids), len(self._ids) + len(ids), dtype=np.int32)
        more = np.zeros((len(ids), self.rows.shape[1]), np.float32)
        self._ids = np.concatenate([self._ids, ids])
        self.rows = np.concatenate([self.rows, more])
        self._settled = np.concatenate([self._settled, more])
        self._speed = np.concatenate([self._speed, np.zeros(len(ids), np.float32)])


def loss(batch: Batch, score: Floats) -> tuple[float, Floats]:
    """How far the head's law lies from the target's, the mean over slots, and its gradients (N, B, K).

    lambda KL + (1 - lambda) TV with lambda = exp(-eta * overlap) (LK, arXiv 2602.23881): the nearer the laws are, the
    more the distance itself counts. Lambda is held fixed for the gradients.
    """
    ours, theirs = law(batch, score), target_law(batch)
    divergence = (theirs * np.log(np.maximum(theirs, 1e-9) / np.maximum(ours, 1e-30))).sum(-1)
    distance = 0.5 * np.abs(theirs - ours).sum(-1)
    share = np.exp(-_ETA * (1 - distance))
    weight = batch.is_slot * _DEPTH_FADING ** np.arange(batch.is_slot.shape[1])
    weight = (weight / weight.sum()).astype(np.float32)
    sides = 0.5 * np.sign(ours - theirs)
    of_distance = ours * (sides - (ours * sides).sum(-1, keepdims=True))
    of_scores = share[..., None] * (ours - theirs) + (1 - share[..., None]) * of_distance
    value = float(((share * divergence + (1 - share) * distance) * weight).sum())
    return value, (of_scores * weight[..., None])[..., :-1]


def _summed(ids: Ids, rows: Floats) -> tuple[Ids, Floats]:
    """Each id once, ascending, and the sum of its rows."""
    order = np.argsort(ids, kind="stable")
    firsts = np.flatnonzero(np.diff(ids[order], prepend=-1))
    return ids[order][firsts], np.add.reduceat(rows[order], firsts)


def _descend(rows: Floats, gradients: Floats, speed: Floats, pace: float) -> None:
    """Move rows down their gradients, in place, each at its own pace: by the squares so far (Adagrad, but fading)."""
    speed *= _FADING
    speed += np.square(gradients).mean(-1)
    rows -= np.float32(pace) * gradients / (np.sqrt(speed)[:, None] + np.float32(1e-12))


def _pace(weights: Floats) -> float:
    """How far the first step takes each number of a row: less of more of them, since they move a score together."""
    size = math.sqrt(float(np.square(weights, dtype=np.float64).mean())) if weights.any() else 0.02
    return _RATE * size / math.sqrt(max(weights.shape[1], 1))
