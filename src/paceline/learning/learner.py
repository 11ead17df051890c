"""The learner of a transition: small steps on what was seen lately and on a choice of what was seen before.

Rows that no anchor of a batch has are not touched, so that a step takes a millisecond or two whatever the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from paceline.heads.transitions import Transition
from paceline.learning.anchors import Anchor, Batch, Memory
from paceline.learning.scoring import Overlay, Table, core_of, log_law, scores, target_law
from paceline.learning.weights import Delta, gate_of

MEMORY_BYTES = 4 << 20  # of anchors
TABLE_BYTES = 2 << 20  # of what is learnt of a table, at most; rows that it has no room for stay the head's own

_ANCHORS = 16  # of a step
_USES = 8.0  # of an anchor, on average: what is learnt from it then is learnt
_RATE = 0.5  # of the first step of a row: what it changes a score by, in usual sizes of what a transition adds
_FADING = 0.98  # of a row's squared gradients with each step: some fifty of them set its pace
_PULL = 0.002  # of each step towards the weights that were promoted last
_ETA = 3.0  # how soon, with the overlap, the distance itself takes the place of the divergence in the loss
_DEPTH_FADING = 0.8  # of a slot's weight with each slot before it: the fewer drafts get there


class Learner:
    """Learns what may become a candidate. It never touches the weights that draft.

    Args:
        transition: the head's own.
        num_bytes: of anchors that are kept to learn from.
        seed: of the choice among them: the same anchors and as many steps give the same weights.
    """

    def __init__(self, transition: Transition, num_bytes: int = MEMORY_BYTES, seed: int = 0) -> None:
        self._transition = transition
        self._memory = Memory(num_bytes, seed)
        self._num_seen, self._num_used = 0, 0.0
        self.start_from(Delta.nothing(transition))

    @property
    def is_hungry(self) -> bool:
        """Whether there is something that it has not learnt enough from."""
        return len(self._memory) > 0 and self._num_used < _USES * self._num_seen

    def observe(self, anchor: Anchor) -> None:
        """Have an anchor to learn from; one that is not sound is left out."""
        if anchor.is_sound:
            self._memory.add(anchor)
            self._num_seen += 1

    def start_from(self, delta: Delta) -> None:
        """Begin at weights and be pulled back to them: after a rollback."""
        overlay = Overlay(self._transition, delta)
        self._first, self._second = _Learnt(overlay.first), _Learnt(overlay.second)
        self._core = core_of(self._transition, delta)
        self._gate = gate_of(self._core)
        self._own_gate = gate_of(self._transition).float()
        self._gate_speed = torch.zeros(len(self._gate))
        self.settle()

    def settle(self, delta: Delta | None = None) -> None:
        """Be pulled towards weights from now on, those of now if not said: what was promoted."""
        delta = self.delta() if delta is None else delta
        self._first.settle(delta.first_ids, delta.first_rows)
        self._second.settle(delta.second_ids, delta.second_rows)
        self._settled_gate = self._own_gate + delta.gate

    def delta(self) -> Delta:
        """What has been learnt so far: a copy."""
        return Delta(*self._first.learnt(), *self._second.learnt(), self._gate - self._own_gate)

    def work(self, until: float, clock: Callable[[], float]) -> int:
        """Learn as long as the next step should end by `until` of the clock; how many steps that were."""
        steps, longest = 0, 0.0
        while self.is_hungry and (start := clock()) + longest < until:
            self.step()
            longest, steps = max(longest, clock() - start), steps + 1
        return steps

    def step(self) -> None:
        """One step on a batch. One whose loss is no number is not taken."""
        batch = Batch.of(self._memory.draw(_ANCHORS))
        self._num_used += _ANCHORS
        first_ids, first_of = torch.unique(batch.before, return_inverse=True)
        second_ids, second_of = torch.unique(batch.ids, return_inverse=True)
        first = self._first.of(first_ids).requires_grad_()
        second = self._second.of(second_ids).requires_grad_()
        self._core.requires_grad_(True)
        embedded, rows = (nn.functional.embedding(*pair) for pair in ((first_of, first), (second_of, second)))
        score = scores(batch, self._core, embedded, rows)
        value = loss(batch, score)
        if value.isfinite():
            value.backward()  # type: ignore[no-untyped-call]
            self._take((self._first, first_ids, first), (self._second, second_ids, second))
        self._core.requires_grad_(False)
        self._core.zero_grad()

    def _take(self, *sides: tuple[_Learnt, torch.Tensor, torch.Tensor]) -> None:
        for table, ids, rows in sides:
            assert rows.grad is not None, "the loss depends on it"
            table.learn(ids, rows.grad)
        for parameter in self._core.parameters():
            if parameter.grad is not None and parameter.shape == self._gate.shape:
                with torch.no_grad():
                    _descend(self._gate, parameter.grad, self._gate_speed, _pace(self._own_gate))
                    self._gate -= _PULL * (self._gate - self._settled_gate)


class _Learnt(Table):
    """A table whose rows are learnt, those that come up, as long as there is room."""

    def __init__(self, table: Table) -> None:
        super().__init__(table.base, torch.zeros(0, dtype=torch.int64), table.rows[:0])
        self._capacity = max(TABLE_BYTES // (4 * table.rows.shape[1]), 1)
        self._pace = _pace(table.base)
        self._ids = torch.zeros(0, dtype=torch.int64)
        self._settled, self._speed = self.rows, torch.zeros(0)
        ids = (table.places >= 0).nonzero().squeeze(-1)
        self._grow(ids)
        self.rows[self.places[ids].long()] = table.rows[table.places[ids].long()]

    def learn(self, ids: torch.Tensor, gradients: torch.Tensor) -> None:
        """Go down the gradients (n, r) of rows."""
        self._grow(ids[self.places[ids] < 0])
        places = self.places[ids].long()
        has_room = places >= 0
        places, gradients = places[has_room], gradients[has_room]
        rows, speed = self.rows[places], self._speed[places]
        _descend(rows, gradients, speed, self._pace)
        self.rows[places] = rows - _PULL * (rows - self._settled[places])
        self._speed[places] = speed

    def settle(self, ids: torch.Tensor, rows: torch.Tensor) -> None:
        """Be pulled towards rows from now on, and in all others towards the head's own."""
        self._settled = torch.zeros_like(self.rows)
        self._settled[self.places[ids].long()] = rows

    def learnt(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids, and what was learnt of their rows."""
        return self._ids.clone(), self.rows.clone()

    def _grow(self, ids: torch.Tensor) -> None:
        ids = ids[: self._capacity - len(self._ids)]
        self.places[ids] = torch.arange(len(self._ids), len(self._ids) + len(ids), dtype=torch.int32)
        more = torch.zeros(len(ids), self.rows.shape[1])
        self._ids = torch.cat([self._ids, ids])
        self.rows = torch.cat([self.rows, more])
        self._settled = torch.cat([self._settled, more])
        self._speed = torch.cat([self._speed, torch.zeros(len(ids))])


def loss(batch: Batch, score: torch.Tensor) -> torch.Tensor:
    """How far the head's law lies from the target's, the mean over slots; the nearer it is, the more distance counts.

    lambda KL + (1 - lambda) TV with lambda = exp(-eta * overlap) (LK, arXiv 2602.23881).
    """
    ours, theirs = log_law(batch, score), target_law(batch)
    divergence = (theirs * (theirs.clamp(min=1e-9).log() - ours)).sum(-1)
    distance = 0.5 * (theirs - ours.exp()).abs().sum(-1)
    share = torch.exp(-_ETA * (1.0 - distance.detach()))
    weight = batch.is_slot * _DEPTH_FADING ** torch.arange(batch.is_slot.shape[1])
    return ((share * divergence + (1.0 - share) * distance) * weight).sum() / weight.sum()


def _descend(rows: torch.Tensor, gradients: torch.Tensor, speed: torch.Tensor, pace: float) -> None:
    """Move rows down their gradients, in place, each at its own pace: by the squares so far (Adagrad, but fading)."""
    speed.mul_(_FADING).add_(gradients.square().mean(-1))
    rows -= pace * gradients / (speed.sqrt().unsqueeze(-1) + 1e-12)


def _pace(weights: torch.Tensor) -> float:
    """How far the first step takes each number of a row: less of more of them, since they move a score together."""
    size = float(weights.float().square().mean().sqrt()) if weights.any() else 0.02
    return _RATE * size / math.sqrt(weights.shape[1])
