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

Weights = Mapping[str, torch.Tensor]  # a transition's, by its own names
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
    rank, rest = transition.rank, _projection(transition)
    if rest is None:
        return torch.zeros(0, 0)
    return rest[:, : 2 * rank] if transition.state_size else rest[:, -rank:]


def laid_over(transition: Transition, delta: Delta) -> dict[str, torch.Tensor]:
    """A transition's weights with what was learnt, in its own type: a copy."""
    weights = {name: weight.detach().clone() for name, weight in transition.state_dict().items()}
    sides = ((FIRST, delta.first_ids, delta.first_rows), (SECOND, delta.second_ids, delta.second_rows))
    for name, ids, rows in sides:
        weights[name][ids] = (weights[name][ids].float() + rows).to(weights[name].dtype)
    name = _projection_name(transition)
    if name:
        view = weights[name]
        part = view[:, : 2 * transition.rank] if transition.state_size else view[:, -transition.rank :]
        part.copy_(part.float() + delta.gate)
    return weights


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


def _projection_name(transition: Transition) -> str:
    names = [name for name, _ in transition.named_parameters() if name.endswith("_proj.weight")]
    return names[0] if names else ""


def _projection(transition: Transition) -> torch.Tensor | None:
    name = _projection_name(transition)
    return transition.get_parameter(name).detach() if name else None


def _pieces(weights: Weights) -> Iterator[memoryview]:
    for name in sorted(weights):
        data = weights[name].detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        yield from (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _digest(piece: memoryview) -> bytes:
    return hashlib.blake2b(piece, digest_size=16).digest()
