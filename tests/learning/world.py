"""A small world: a target that is a Markov chain, a head whose transition was made for one domain, and anchors."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.heads.transitions import TRANSITIONS, Transition
from paceline.heads.weights import Weights as HeadWeights
from paceline.learning.anchors import Anchor, Batch
from paceline.learning.scoring import Overlay, accepted
from paceline.learning.weights import Delta, gate_of

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


def with_weights(own: Transition, weights: HeadWeights) -> Transition:
    """A transition as another, with those weights in place of its own."""
    made = copy.deepcopy(own)
    with torch.no_grad():
        made.markov_w1.weight.copy_(torch.from_numpy(weights.w1))
        made.markov_w2.weight.copy_(torch.from_numpy(weights.w2))
        if len(weights.joint):
            gate_of(made).copy_(torch.from_numpy(weights.joint))
    return made


class FakePupil:
    """A head without a drafter: what is installed lies in a dictionary, and a draft is worth what it would bring."""

    def __init__(self, own: Transition, margin: float = 0.0) -> None:
        self.transition, self.margin, self.num_slots = own, margin, SLOTS
        self.own = HeadWeights.of(own)
        self.installed: dict[str, HeadWeights] = {}

    def install(self, tenant: str, weights: HeadWeights) -> None:
        self.installed[tenant] = weights

    def weights(self, tenant: str) -> HeadWeights:
        return self.installed.get(tenant, self.own)

    def forget(self, tenant: str) -> None:
        self.installed.pop(tenant, None)

    def drafting(self, tenant: str) -> Transition:
        """The transition that drafts for a tenant now."""
        return with_weights(self.transition, self.weights(tenant))


def tokens_per_step(made: Transition, anchors: list[Anchor]) -> float:
    """What drafts of a transition bring on anchors, the target's own token included."""
    batch = Batch.of(anchors)
    scores = Overlay(made, Delta.nothing(made)).scores(batch)
    return float((accepted(batch, scores) + 1.0).mean())
