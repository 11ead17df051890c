"""What is learnt of a transition: rows of its two tables, and the part of its gate that sees tokens, as differences.

The rest of a head stays as it was: keys and values of the text so far were made by it. V is the vocabulary, r the rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.heads.weights import Floats, Weights

Arrays = Mapping[str, NDArray[Any]]
Ids = NDArray[np.int64]

_PIECE = 1 << 18  # bytes that are digested at once: a fraction of a millisecond


@dataclass(frozen=True, eq=False)
class Delta:
    """What was learnt: rows (n, r) of each table by their ids (n,), and the differences of `joint`."""

    first_ids: Ids
    first_rows: Floats
    second_ids: Ids
    second_rows: Floats
    joint: Floats

    @staticmethod
    def nothing(own: Weights) -> Delta:
        """That of weights which have learnt nothing."""
        none, rows = np.zeros(0, np.int64), np.zeros((0, own.rank), np.float32)
        return Delta(none, rows, none, rows, np.zeros_like(own.joint))

    @staticmethod
    def of(arrays: Arrays, own: Weights) -> Delta:
        """From what was kept.

        Raises:
            ValueError: it is not of these weights, or has what is no number.
        """
        wanted = vars(Delta.nothing(own))
        if set(arrays) != set(wanted):
            raise ValueError(f"what was learnt has {sorted(arrays)}; allowed: {sorted(wanted)}")
        delta = Delta(**arrays)
        if not (_are_alike(arrays, wanted) and delta._is_within(own) and delta.is_finite):
            raise ValueError("what was learnt is of another head, or no numbers")
        return delta

    @property
    def arrays(self) -> Arrays:
        """Ready to be kept."""
        return vars(self)

    @property
    def is_nothing(self) -> bool:
        """Whether it changes nothing."""
        return not any(rows.any() for rows in (self.first_rows, self.second_rows, self.joint))

    @property
    def is_finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(bool(np.isfinite(rows).all()) for rows in (self.first_rows, self.second_rows, self.joint))

    def digest(self) -> str:
        """What tells it from others by any bit."""
        hashed = hashlib.sha256()
        for name, array in vars(self).items():
            hashed.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return hashed.hexdigest()

    def laid_over(self, own: Weights) -> Weights:
        """Weights with what was learnt: a copy."""
        w1, w2 = own.w1.copy(), own.w2.copy()
        w1[self.first_ids] += self.first_rows
        w2[self.second_ids] += self.second_rows
        return Weights(w1, w2, own.joint + self.joint)

    def _is_within(self, own: Weights) -> bool:
        sides = ((self.first_ids, self.first_rows, own.w1), (self.second_ids, self.second_rows, own.w2))
        return self.joint.shape == own.joint.shape and all(
            len(ids) == len(rows) and bool(((ids >= 0) & (ids < len(table))).all()) for ids, rows, table in sides
        )


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


def _are_alike(arrays: Arrays, wanted: Arrays) -> bool:
    return all(
        arrays[name].dtype == array.dtype and arrays[name].shape[1:] == array.shape[1:]
        for name, array in wanted.items()
    )


def _pieces(weights: Weights) -> Iterator[memoryview]:
    for array in (weights.w1, weights.w2, weights.joint):
        data = array.reshape(-1).view(np.uint8).data
        yield from (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))


def _digest(piece: memoryview) -> bytes:
    return hashlib.blake2b(piece, digest_size=16).digest()
