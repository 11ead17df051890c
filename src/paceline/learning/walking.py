"""The vectors that a transition makes along anchors' paths, and the way back of their gradients: `Transition` in numpy.

Small arrays, one thread: PyTorch's own way would wake its threads for each of some fifty operations.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from paceline.heads.weights import Floats


class Walk(Protocol):
    """Paths that were walked. N anchors, B slots, r the rank, F features."""

    vectors: Floats  # (N, B, r)

    def back(self, gradients: Floats) -> tuple[Floats, Floats]:
        """Gradients of the embeddings (N, B, r) and of the joint weights, from those of the vectors."""


def walk(joint: Floats, embedded: Floats, features: Floats) -> Walk:
    """Walk paths: embeddings of the tokens before (N, B, r), what slots contribute (N, B, F), see `heads.weights`."""
    if not len(joint):
        return _Plain(joint, embedded)
    is_recurrent = joint.shape[1] > embedded.shape[-1]
    return (_Recurrent if is_recurrent else _Gated)(joint, embedded, features)


class _Plain:
    """The vectors are the embeddings."""

    def __init__(self, joint: Floats, embedded: Floats) -> None:
        self.vectors, self._joint = embedded, joint

    def back(self, gradients: Floats) -> tuple[Floats, Floats]:
        """See `Walk`."""
        return gradients, np.zeros_like(self._joint)


class _Gated:
    """Each number of an embedding is let through by a gate."""

    def __init__(self, joint: Floats, embedded: Floats, features: Floats) -> None:
        self._joint, self._embedded = joint, embedded
        self._gates = _sigmoid(features + np.matmul(embedded, joint.T))
        self.vectors = self._gates * embedded

    def back(self, gradients: Floats) -> tuple[Floats, Floats]:
        """See `Walk`."""
        inner = gradients * self._embedded * self._gates * (1 - self._gates)
        return gradients * self._gates + np.matmul(inner, self._joint), _outer(inner, self._embedded)


class _Slot(NamedTuple):
    """What a recurrent path had at a slot: (N, ...) each."""

    both: Floats  # the state before it, and the embedding
    share: Floats
    candidate: Floats


class _Recurrent:
    """A gated state goes along the path."""

    def __init__(self, joint: Floats, embedded: Floats, features: Floats) -> None:
        self._joint, self._slots = joint, list[_Slot]()
        state, vectors = np.zeros_like(embedded[:, 0]), []
        for slot in range(embedded.shape[1]):
            both = np.concatenate([state, embedded[:, slot]], -1)
            gate, candidate, out = np.split(features[:, slot] + both @ joint.T, 3, -1)
            seen = _Slot(both, _sigmoid(gate), np.tanh(candidate))
            state = seen.share * state + (1 - seen.share) * seen.candidate
            self._slots.append(seen)
            vectors.append(np.tanh(out))
        self.vectors = np.stack(vectors, 1)

    def back(self, gradients: Floats) -> tuple[Floats, Floats]:
        """See `Walk`."""
        rank = gradients.shape[-1]
        of_joint, of_state, of_embedded = np.zeros_like(self._joint), np.zeros_like(gradients[:, 0]), []
        for slot in reversed(range(len(self._slots))):
            both, share, candidate = self._slots[slot]
            of_gate = of_state * (both[:, :rank] - candidate) * share * (1 - share)
            of_candidate = of_state * (1 - share) * (1 - candidate**2)
            of_out = gradients[:, slot] * (1 - self.vectors[:, slot] ** 2)
            inner = np.concatenate([of_gate, of_candidate, of_out], -1)
            of_joint += inner.T @ both
            of_both = inner @ self._joint
            of_state = of_state * share + of_both[:, :rank]
            of_embedded.append(of_both[:, rank:])
        return np.stack(of_embedded[::-1], 1), of_joint


def _outer(left: Floats, right: Floats) -> Floats:
    """The sum over anchors and slots of outer products."""
    return np.asarray(left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1]))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x), np.float32)
