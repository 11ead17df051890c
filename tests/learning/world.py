"""A small world: a target that is a Markov chain, a head whose transition was made for one domain, and anchors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.heads.transitions import TRANSITIONS, Transition
from paceline.heads.weights import Weights
from paceline.learning.anchors import Anchor, Batch
from paceline.learning.scoring import Overlay, accepted
from paceline.learning.weights import Delta

V, RANK, HIDDEN, SLOTS, CANDIDATES = 40, 12, 6, 4, 10
ANCHORS = 12  # of a request

Matrix = NDArray[np.float64]


def domain(seed: int) -> Matrix:
    """A target's law of the next token after each (V, V), sharp enough to be foretold."""
    scores = np.random.default_rng(seed).normal(size=(V, V)) * 2.5
    law = np.exp(scores - scores.max(1, keepdims=True))
    return law / law.sum(1, keepdims=True)


def transition(law: Matrix, kind: str = "vanilla") -> Transition:
    """One that was made for a domain: the best of its rank in the logarithm of law over marginal."""
    torch.manual_seed(0)
    made = TRANSITIONS[kind](V, V, RANK, HIDDEN)
    scores = np.log(law) - np.log(law.mean(0))
    u, s, v = np.linalg.svd(scores - scores.mean(1, keepdims=True))
    root = np.sqrt(s[:RANK])
    with torch.no_grad():
        made.markov_w1.weight.copy_(torch.from_numpy(u[:, :RANK] * root))
        made.markov_w2.weight.copy_(torch.from_numpy(v[:RANK].T * root))
    return made


class Traffic:
    """Anchors of a domain, as a head with a frozen backbone sees them that has been trained on another."""

    def __init__(self, law: Matrix, trained_on: Matrix, seed: int, own: Transition | None = None) -> None:
        self.law, self._own = law, own
        self._rng = np.random.default_rng(seed)
        self._marginal = np.log(0.5 * law.mean(0) + 0.5 * trained_on.mean(0))
        self._pending = 0

    def anchors(self, count: int, first: int = 0) -> list[Anchor]:
        return [self.anchor(first + i) for i in range(count)]

    def anchor(self, number: int) -> Anchor:
        """The slots behind the token that came last; the backbone knows little more than what comes often."""
        before, came = [], []
        all_logits = self._marginal + self._rng.normal(size=(SLOTS, V)) * 0.3
        noise = self._rng.gumbel(size=(SLOTS, V))
        for slot in range(SLOTS):
            before.append(self._pending)
            self._pending = int((np.log(self.law[self._pending]) + noise[slot]).argmax())
            came.append(self._pending)
        ids = np.argsort(-(all_logits + noise + np.log(self.law[before]) * 0.5), axis=1)[:, :CANDIDATES]
        return self._made(number, np.array(before), np.array(came), ids, all_logits, noise)

    def _made(
        self,
        number: int,
        before: NDArray[np.int64],
        came: NDArray[np.int64],
        ids: NDArray[np.int64],
        logits: Matrix,
        noise: Matrix,
    ) -> Anchor:
        slots = np.arange(SLOTS)[:, None]
        others = logits.copy()
        others[slots, ids] = -np.inf
        is_it = ids == came[:, None]
        hidden = torch.from_numpy(self._rng.normal(size=(SLOTS, HIDDEN)).astype(np.float32))
        features = (
            np.zeros((SLOTS, 0), np.float32) if self._own is None else self._own.features(hidden).detach().numpy()
        )
        return Anchor(
            request=number // ANCHORS,
            position=number % ANCHORS * SLOTS,
            temperature=1.0,
            before=before,
            came=np.where(is_it.any(1), is_it.argmax(1), -1),
            ids=ids,
            logits=logits[slots, ids].astype(np.float32),
            rest=np.log(np.exp(others).sum(1)).astype(np.float32),
            features=features,
            target=self.law[before][slots, ids].astype(np.float32),
            noise=noise[slots, ids].astype(np.float32),
        )


def weights(law: Matrix, kind: str = "vanilla") -> Weights:
    """Those of a transition that was made for a domain, as they draft."""
    return Weights.of(transition(law, kind))


class FakePupil:
    """A head without a drafter: what is installed lies in a dictionary."""

    def __init__(self, own: Weights, margin: float = 0.0) -> None:
        self.own, self.margin, self.num_slots = own, margin, SLOTS
        self.installed: dict[str, Weights] = {}

    def install(self, tenant: str, weights: Weights) -> None:
        self.installed[tenant] = weights

    def weights(self, tenant: str) -> Weights:
        return self.installed.get(tenant, self.own)

    def forget(self, tenant: str) -> None:
        self.installed.pop(tenant, None)


def tokens_per_step(drafting: Weights, anchors: list[Anchor]) -> float:
    """What drafts with weights bring on anchors, the target's own token included."""
    batch = Batch.of(anchors)
    return float((accepted(batch, Overlay(drafting, Delta.nothing(drafting)).scores(batch)) + 1).mean())
