"""Anchors: places of a text where a head drafted, with what the target then said. They are what is learnt from.

B is the slots of an anchor, at most the head's block; K the candidates of each; F the numbers that the head's
transition takes of a slot; N the anchors of a batch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEARNT_FROM = 8  # candidates of a slot: more cost time and have next to no probability

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Anchor:
    """A pending token and the slots behind it, along the path that the target really went.

    Slots are consecutive, from the head's first on. Candidates do not depend on the transition, so two heads that
    differ in it alone draft from the same. Of a greedy request the law is that of temperature 1, and the noise is 0.
    """

    request: int  # whose text it is
    position: int  # of the pending token in it
    temperature: float  # of the target's law, above 0
    before: Ids  # (B,) the token before each slot: the pending one, then those that came
    came: Ids  # (B,) which candidate came, by its place; -1: none of them
    ids: Ids  # (B, K) the candidates, by the head's own logits
    logits: Floats  # (B, K) of the candidates, without the transition
    rest: Floats  # (B,) log-sum-exp of all other logits, at the temperature
    features: Floats  # (B, F)
    target: Floats  # (B, K) the target's probabilities; what they lack to 1 is that of all other tokens
    noise: Floats  # (B, K) what is added to scores at the temperature before the best is drafted

    @property
    def num_bytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.before, self.came, self.ids, self.logits, self.rest, self.features, self.target, self.noise)
        return sum(array.nbytes for array in arrays)

    @property
    def is_sound(self) -> bool:
        """Whether there is something to learn, and nothing that is no number."""
        floats = (self.logits, self.rest, self.features, self.target, self.noise)
        return len(self.before) > 0 and self.temperature > 0 and all(np.isfinite(one).all() for one in floats)

    def to_learn_from(self) -> Anchor:
        """What learning takes of it: the candidates that matter to either law, the others being among the rest."""
        scaled = self.logits / np.float32(self.temperature)
        whole = np.concatenate([scaled, self.rest[:, None]], -1)
        ours = np.exp(scaled - _log_sum(whole)[:, None])
        order = np.argsort(-(ours + self.target), -1, kind="stable")
        kept, others = order[:, :_LEARNT_FROM], order[:, _LEARNT_FROM:]
        rest = np.concatenate([np.take_along_axis(scaled, others, -1), self.rest[:, None]], -1)
        logits, target = (np.take_along_axis(one, kept, -1) for one in (self.logits, self.target))
        ids, nowhere = np.take_along_axis(self.ids, kept, -1), np.full_like(self.came, -1)
        none = np.zeros((len(kept), 0), np.float32)
        return replace(self, ids=ids, logits=logits, target=target, rest=_log_sum(rest), came=nowhere, noise=none)


@dataclass(frozen=True, eq=False)
class Batch:
    """Anchors as arrays, padded to the slots of the longest: (N, B, ...)."""

    temperature: Floats  # (N, 1, 1)
    is_slot: NDArray[np.bool_]  # (N, B) False where it is padding
    before: Ids
    came: Ids
    ids: Ids
    logits: Floats
    rest: Floats
    features: Floats
    target: Floats
    noise: Floats

    @staticmethod
    def of(anchors: Sequence[Anchor]) -> Batch:
        """A batch of at least one."""
        lengths = np.array([len(anchor.before) for anchor in anchors])
        longest = int(lengths.max())

        def stacked(name: str) -> NDArray[Any]:
            arrays = [getattr(anchor, name) for anchor in anchors]
            whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
            for row, array in zip(whole, arrays, strict=True):
                row[: len(array)] = array
            return whole

        temperature = np.array([anchor.temperature for anchor in anchors], np.float32).reshape(-1, 1, 1)
        is_slot = np.arange(longest) < lengths[:, None]
        names = ("before", "came", "ids", "logits", "rest", "features", "target", "noise")
        return Batch(temperature, is_slot, *(stacked(name) for name in names))


class Memory:
    """The latest anchors, and beside them a uniform choice of all that came earlier. Each takes half of the bytes.

    Args:
        num_bytes: of both together, at most.
        seed: of what is chosen.
    """

    def __init__(self, num_bytes: int, seed: int) -> None:
        self._half = num_bytes // 2
        self._rng = random.Random(seed)
        self._latest: deque[Anchor] = deque()
        self._history: list[Anchor] = []
        self._sizes = [0, 0]  # bytes of the two
        self._num_passed = 0  # anchors that were no longer among the latest

    def __len__(self) -> int:
        return len(self._latest) + len(self._history)

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return sum(self._sizes)

    def add(self, anchor: Anchor) -> None:
        """Take an anchor; one that has no room even alone is left out."""
        anchor = anchor.to_learn_from()
        if anchor.num_bytes > self._half:
            return
        self._latest.append(anchor)
        self._sizes[0] += anchor.num_bytes
        while self._sizes[0] > self._half:
            oldest = self._latest.popleft()
            self._sizes[0] -= oldest.num_bytes
            self._pass_on(oldest)

    def draw(self, count: int) -> list[Anchor]:
        """Anchors to learn from: half of them of the latest, half of history where there is one."""
        num_old = count // 2 if self._history else 0
        return self._rng.choices(self._latest, k=count - num_old) + self._rng.choices(self._history or [], k=num_old)

    def _pass_on(self, anchor: Anchor) -> None:
        """Choose uniformly among all that were passed on (Vitter 1985, algorithm R), within the bytes."""
        self._num_passed += 1
        if self._rng.random() * self._num_passed >= len(self._history) and not self._has_room(anchor):
            return
        while not self._has_room(anchor):
            last = len(self._history) - 1
            place = self._rng.randint(0, last)
            self._history[place], self._history[last] = self._history[last], self._history[place]
            self._sizes[1] -= self._history.pop().num_bytes
        self._history.append(anchor)
        self._sizes[1] += anchor.num_bytes

    def _has_room(self, anchor: Anchor) -> bool:
        return self._sizes[1] + anchor.num_bytes <= self._half


def _log_sum(values: Floats) -> Floats:
    """log(sum(exp(values))) over the last dimension."""
    peaks = values.max(-1, keepdims=True)
    return np.asarray(peaks[..., 0] + np.log(np.exp(values - peaks).sum(-1)))
