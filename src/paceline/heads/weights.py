"""A transition's weights outside of PyTorch: what re-scores candidates token by token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.heads.transitions import GatedTransition, RecurrentTransition, Transition

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """Those of a `Transition`. How a vector comes about shows in the shape of `joint`: not at all, gated, recurrent."""

    w1: Floats  # (V, r)
    w2: Floats  # (num_logits, r)
    joint: Floats  # (F, state + r) what a slot's features meet: of gates; (0, ...) of the plain kind

    @classmethod
    def of(cls, transition: Transition) -> Weights:
        """Those of a module."""
        rank, joint = transition.rank, np.zeros((0, transition.rank), np.float32)
        if isinstance(transition, GatedTransition):
            joint = _array(transition.gate_proj.weight[:, -rank:])
        if isinstance(transition, RecurrentTransition):
            joint = _array(transition.joint_proj.weight[:, : 2 * rank])
        return cls(_array(transition.markov_w1.weight), _array(transition.markov_w2.weight), joint)

    @cached_property
    def columns(self) -> Floats:
        """(r, num_logits): `w2` by columns, for whoever adds all of them up."""
        return np.ascontiguousarray(self.w2.T)

    @property
    def rank(self) -> int:
        """R."""
        return int(self.w1.shape[1])

    @property
    def state_size(self) -> int:
        """Numbers that go along a path."""
        return int(self.joint.shape[1]) - self.rank

    @property
    def num_bytes(self) -> int:
        """Bytes of all of them."""
        return self.w1.nbytes + self.w2.nbytes + self.joint.nbytes

    def step(self, state: Floats, token: int, features: Floats) -> tuple[Floats, Floats]:
        """See `Transition.step`: the state behind a slot, and its vector (r,)."""
        before = self.w1[token if token < len(self.w1) else 0]  # an id beyond may stand for padding
        if not len(self.joint):
            return state, before
        joint = features + self.joint @ np.concatenate([state, before])
        if not self.state_size:
            return state, _sigmoid(joint) * before
        gate, candidate, out = np.split(joint, 3)
        share = _sigmoid(gate)
        return share * state + (1 - share) * np.tanh(candidate), np.tanh(out)


def _array(weight: torch.Tensor) -> Floats:
    return np.ascontiguousarray(weight.detach().float().cpu().numpy())


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), np.float32)
