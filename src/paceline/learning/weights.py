"""What is learnt of a transition: rows of its two tables, and of its gate what sees tokens, as differences to its own.

The rest of a head stays as it was: keys and values of the text so far were made by it. V is the vocabulary, r the rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.heads.transitions import Transition
from paceline.heads.weights import Weights

Arrays = Mapping[str, NDArray[np.generic]]

FIRST, SECOND = "markov_w1.weight", "markov_w2.weight"  # (V, r) by the token before; (logits, r) by the token drafted

_PIECE = 1 << 20  # bytes that are digested at once: about a millisecond


@dataclass(frozen=True, eq=False)
class Delta:
    """What was learnt: rows (n, r) of each table by their ids (n,), and the differences of the gate (o, i)."""

    first_ids: torch.Tensor
    first_rows: torch.Tensor
    second_ids: torch.Tensor
    second_rows: torch.Tensor
    gate: torch.Tensor

    def as_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Ready to be kept."""
        return {name: tensor.numpy() for name, tensor in vars(self).items()}

    @staticmethod
    def nothing(transition: Transition) -> Delta:
        """That of a transition which has learnt nothing."""
        none, rows = torch.zeros(0, dtype=torch.int64), torch.zeros(0, transition.rank)
        return Delta(none, rows, none, rows, torch.zeros_like(gate_of(transition), dtype=torch.float32))

    @staticmethod
    def of(arrays: Arrays, transition: Transition) -> Delta:
        """From what was kept.

        Raises:
            ValueError: it is not of this transition, or has what is no number.
        """
        wanted = Delta.nothing(transition)
        if set(arrays) != set(vars(wanted)):
            raise ValueError(f"what was learnt has {sorted(arrays)}; allowed: {sorted(vars(wanted))}")
        delta = Delta(**{name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
        if not (delta._fits(transition, wanted) and delta.is_finite):
            raise ValueError("what was learnt is of another head, or no numbers")
        return delta

    @property
    def is_nothing(self) -> bool:
        """Whether it changes nothing."""
        return not any(bool(rows.any()) for rows in (self.first_rows, self.second_rows, self.gate))

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(bool(rows.isfinite().all()) for rows in (self.first_rows, self.second_rows, self.gate))

    def digest(self) -> str:
        """What tells it from others by any bit."""
        hashed = hashlib.sha256()
        for name, array in self.as_arrays().items():
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return hashed.hexdigest()

    def _fits(self, transition: Transition, wanted: Delta) -> bool:
        tables = dict(transition.named_parameters())
        is_alike = all(
            mine.dtype == theirs.dtype and mine.shape[1:] == theirs.shape[1:]
            for mine, theirs in zip(vars(self).values(), vars(wanted).values(), strict=True)
        )
        sides = ((self.first_ids, self.first_rows, FIRST), (self.second_ids, self.second_rows, SECOND))
        return (
            is_alike
            and self.gate.shape == wanted.gate.shape
            and all(
                len(ids) == len(rows) and bool(((ids >= 0) & (ids < len(tables[name]))).all())
                for ids, rows, name in sides
            )
        )


def gate_of(transition: Transition) -> torch.Tensor:
    """The columns of a transition's projection that tokens come through, as a view; none of the plain kind."""
    rank, whole = transition.rank, _projection(transition)
    if whole is None:
        return torch.zeros(0, 0)
    return whole[:, : 2 * rank] if transition.state_size else whole[:, -rank:]


def laid_over(transition: Transition, delta: Delta) -> Weights:
    """A transition's weights with what was learnt: a copy."""
    own = Weights.of(transition)
    w1, w2 = own.w1.copy(), own.w2.copy()
    w1[delta.first_ids] += delta.first_rows.numpy()
    w2[delta.second_ids] += delta.second_rows.numpy()
    return Weights(w1, w2, own.joint + delta.gate.numpy() if len(own.joint) else own.joint)


class Watch:
    """Tells when weights in memory are no longer what they were, a piece at a time."""

    def __init__(self, weights: Weights) -> None:
        self._digests = [_digest(piece) for piece in _pieces(weights)]
        self._next = 0

    def look(self, weights: Weights) -> bool:
        """Whether the next piece is what it was; after as many looks as there are pieces all were looked at."""
        pieces = list(_pieces(weights))
        if len(pieces) != len(self._digests):
            return False
        place, self._next = self._next, (self._next + 1) % len(pieces)
        return _digest(pieces[place]) == self._digests[place]


def _projection(transition: Transition) -> torch.Tensor | None:
    names = [name for name, _ in transition.named_parameters() if name.endswith("_proj.weight")]
    return transition.get_parameter(names[0]).detach() if names else None


def _pieces(weights: Weights) -> Iterator[memoryview]:
    for array in (weights.w1, weights.w2, weights.joint):
        data = array.reshape(-1).view(np.uint8).data
        yield from (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _digest(piece: memoryview) -> bytes:
    return hashlib.blake2b(piece, digest_size=16).digest()
