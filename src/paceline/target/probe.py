"""Which row counts give a row the same bits on this model? Measured at load, never assumed.

One small tree is run with the model's real forward: alone, at each candidate row count, with its rows in other
places and beside other neighbours. Only counts whose every row has the reference bits are used.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.target.hf import Decoder
from paceline.target.pool import PAGE_SIZE, CachedSequence
from paceline.target.rows import TreeWork

REFERENCE = 16  # rows; every path known gives stable bits here if it does anywhere
ALWAYS = (1, 8, 4, 2, 32)
# In the order of their worth: time may cut this list short, which costs padding and changes no bit.
WHILE_TIME_LASTS = (64, 12, 6, 3, 24, 5, 7, 10, 48, 9, 11, 13, 14, 15, 20, 28, 40)
_PROBED = 5  # rows of the tree under probe
_ROOM = 16  # positions that the deepest probed row may stand behind the prefix
_PREFIX = 2 * PAGE_SIZE + 5  # committed positions: the tail, one shared tile and an odd rest


class Probe:
    """Runs the forward of `decoder` on odd shapes and compares bits."""

    def __init__(self, decoder: Decoder, vocab_size: int, max_length: int) -> None:
        self._decoder = decoder
        self._rng = np.random.default_rng(0)
        self._vocab_size = vocab_size
        prefix = max(1, min(_PREFIX, max_length - _ROOM))
        self._sequences = [self._sequence(length) for length in (prefix, max(1, prefix - 9), min(3, prefix))]
        self._probed = TreeWork(self._sequences[0], self._tokens(_PROBED), [-1, 0, 1, 0, 3])

    def _sequence(self, length: int) -> CachedSequence:
        sequence = self._decoder.pool.reserve(_PREFIX + PAGE_SIZE)
        if sequence is None:
            raise RuntimeError("the page pool is too small to probe")
        self._decoder.prefill(sequence, self._tokens(length))
        return sequence

    def _tokens(self, count: int) -> list[int]:
        return [int(t) for t in self._rng.integers(0, self._vocab_size, count)]

    def row_counts(self, seconds: float) -> list[int]:
        """Row counts with the reference's bits, ascending; empty if the reference is not stable itself."""
        deadline = time.perf_counter() + seconds
        reference = self._bits(REFERENCE, before=0)
        if not self._is_stable(REFERENCE, reference):
            return []
        stable = [REFERENCE]
        for count in ALWAYS + WHILE_TIME_LASTS:
            if count in WHILE_TIME_LASTS and time.perf_counter() > deadline:
                break
            if self._is_stable(count, reference):
                stable.append(count)
        return sorted(stable)

    def _is_stable(self, count: int, reference: NDArray[np.float32]) -> bool:
        """True if the probed rows have the reference's bits at `count` rows, at several places among others."""
        spare = count - _PROBED
        if spare < 0:
            return all(self._is_stable_alone(row, count, reference) for row in range(_PROBED))
        places = {0, spare, int(self._rng.integers(0, spare + 1))}
        return all(np.array_equal(self._bits(count, before), reference) for before in places)

    def _is_stable_alone(self, row: int, count: int, reference: NDArray[np.float32]) -> bool:
        """The same for counts below the tree's size: a part of it, its ancestors already stored."""
        first = max(0, row - count + 1)
        part = TreeWork(self._probed.sequence, self._probed.tokens[: row + 1], self._probed.parents[: row + 1], first)
        return np.array_equal(self._run([part], count), reference[first : row + 1])

    def _bits(self, count: int, before: int) -> NDArray[np.float32]:
        """Logits of the probed rows with `before` rows of other sequences in front of them, and more behind."""
        spare = count - _PROBED - before
        front, back = self._neighbour(1, before), self._neighbour(2, spare)
        logits = self._run([w for w in (front, self._probed, back) if len(w.tokens)], count)
        return logits[before : before + _PROBED]

    def _neighbour(self, which: int, count: int) -> TreeWork:
        return TreeWork(self._sequences[which], self._tokens(count), [(i + 1) // 2 - 1 for i in range(count)])

    def _run(self, work: Sequence[TreeWork], count: int) -> NDArray[np.float32]:
        self._decoder.row_counts = (count,)
        return self._decoder.forward(work)

    def close(self) -> None:
        """Give the probe's pages back."""
        for sequence in self._sequences:
            self._decoder.pool.release(sequence)


def proven_row_counts(decoder: Decoder, vocab_size: int, max_length: int, seconds: float) -> list[int]:
    """Row counts that give identical bits, or an empty list; leaves `decoder.row_counts` to the caller."""
    probe = Probe(decoder, vocab_size, max_length)
    try:
        with torch.inference_mode():
            return probe.row_counts(seconds)
    finally:
        probe.close()
