"""Gumbel noise keyed by place, and the largest of scores plus noise without drawing more of it than that takes.

Knows nothing of parameters or logits. V is the vocabulary. What is decided is decided in float64; float32 only
leaves out tokens that provably cannot win. Passes over a large V go part by part, within the processor's cache.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = NDArray[np.floating[Any]]  # float64, or float32 where they are the model's own logits
Ids = NDArray[np.int64]

PART = 8192  # elements; also below the size from which a BLAS splits a dot product among threads
_FEW = 32  # tokens; the generator starts afresh for each that is drawn alone, at the price of a thousand in a row


class Noise:
    """Gumbel noise of one sample: `at(position)` is (V,) float64, the same whoever asks and however often.

    Philox 4x64 (Salmon et al. 2011) keyed by (seed, sample), with the position in the counter. The position
    counts from the start of the prompt, so that a request continued from its own output meets the same noise.
    A float32 uniform would have too few values near 1, where the winning tokens come from.
    """

    def __init__(self, seed: int, sample: int, vocab_size: int) -> None:
        self.key = (seed % 2**64, sample)  # what it depends on beside the position
        self._drawn_by = np.random.Philox(key=np.array(self.key, dtype=np.uint64))
        self._start = self._drawn_by.state  # at no place yet
        self._vocab_size = vocab_size
        self._kept: dict[int, Floats] = {}
        self._ceilings: dict[int, NDArray[np.float32]] = {}

    def at(self, position: int) -> Floats:
        """The noise of the token at `position`; drawn once and kept until `forget` passes it."""
        if position not in self._kept:
            self._kept[position] = exact_noise(self._generator(position).random_raw(self._vocab_size))
        return self._kept[position]

    def best(self, scores: Scores, position: int, count: int = 1) -> tuple[Ids, Floats]:
        """Ids and sums of the `count` largest of `scores + at(position)`, largest first, a tie by the lower id.

        They are those of the whole float64 sum, to the bit. Over a large vocabulary only the tokens that may win
        are given their noise, so that this costs far less than `at`.
        """
        if scores.size <= PART or not np.isfinite(peak := float(scores.max())):
            sums = scores + self.at(position)
            best = largest(sums, count)
            return best, sums[best]
        ids = self._contenders(scores, peak, position, count)
        sums = scores[ids] + self._of(position, ids)
        best = largest(sums, count)
        return ids[best], sums[best]

    def forget(self, position: int) -> None:
        """Drop what is kept for places up to `position`, which are committed."""
        for table in (self._kept, self._ceilings):
            for old in [kept for kept in table if kept <= position]:
                del table[old]

    def _contenders(self, scores: Scores, peak: float, position: int, count: int) -> Ids:
        """Ids, ascending, that hold the `count` largest of scores (V,) + noise; `peak` is the largest score.

        The bar is the least exact sum of the `count` tokens that look best; who stays below it by ceiling is out.
        A token that passes it lies less than 37 below it, so the roundings to float32 of its score, of the sum and
        of the bar are below 2**-22 |bar| + 1e-5; those of the float64 sums are below 2**-51 |peak|.
        """
        if np.count_nonzero(scores > -np.inf) <= _FEW:
            allowed = np.flatnonzero(scores > -np.inf)
            return allowed if count <= allowed.size else np.union1d(allowed, np.arange(min(count, scores.size)))
        with np.errstate(over="ignore"):  # to -inf, in float32
            looks = np.subtract(scores, peak, out=np.empty(scores.size, np.float32), casting="same_kind")
            looks += self._ceiling(position)
            first = largest(looks, count)
            bar = float((scores[first] + self._of(position, first)).min()) - peak
            return np.flatnonzero(looks >= np.float32(bar - 2.0**-22 * abs(bar) - 2.0**-51 * abs(peak)))

    def _of(self, position: int, ids: Ids) -> Floats:
        """The noise of some tokens; those of the rest are not drawn if they are few."""
        if position in self._kept or ids.size > _FEW:
            return self.at(position)[ids]
        drawn = [self._generator(position, i // 4).random_raw(4)[i % 4] for i in ids.tolist()]
        return exact_noise(np.array(drawn, np.uint64))

    def _ceiling(self, position: int) -> NDArray[np.float32]:
        """(V,), above the noise; kept like it."""
        if position not in self._ceilings:
            generator, sizes = self._generator(position), [part.stop - part.start for part in parts(self._vocab_size)]
            self._ceilings[position] = np.concatenate([noise_ceiling(generator.random_raw(n)) for n in sizes])
        return self._ceilings[position]

    def _generator(self, position: int, block: int = 0) -> np.random.Philox:
        """What draws the random bits from the token 4 * block on: each value of the counter stands for four.

        One generator for all places: to make another takes ten times as long as to send this one there.
        """
        self._start["state"]["counter"][:2] = block, position
        self._drawn_by.state = self._start
        return self._drawn_by


def exact_noise(bits: NDArray[np.uint64]) -> Floats:
    """Standard Gumbel variates of random bits, elementwise; from -3.6 to 36.8."""
    noise: Floats = -np.log(-np.log(open_uniforms(bits)))
    return noise


def open_uniforms(bits: NDArray[np.uint64]) -> Floats:
    """Uniforms in (0, 1) from the upper 52 of 64 random bits; with 53, adding a half would round up to 1."""
    uniforms: Floats = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return uniforms


def noise_ceiling(bits: NDArray[np.uint64]) -> NDArray[np.float32]:
    """An upper bound of `exact_noise(bits)` that takes no logarithm; where the noise is above 3 within 0.1 of it.

    With c = 1 - u, which the lower bits only add to, -log(-log u) <= -log c, as -log(1 - c) >= c. The bits of a
    positive float32, read as an integer and over 2**23, are its log2 plus 127 less 0 to 0.0861 (Mitchell 1962).
    Where the upper 32 bits of c are all 0, once in 2**32 draws, the bound is 110, far above but still a bound.
    The float32 roundings here are below 3e-5 together; `_MARGIN` covers them and those of `Noise.best`.
    """
    upper = bits.view(np.uint32)[_UPPER_HALF]
    complement = np.invert(upper).astype(np.float32)  # of 2**32
    ceiling = complement.view(np.int32).astype(np.float32)
    ceiling *= -_LOG_2 * 2.0**-23
    ceiling += (127 + 32) * _LOG_2 + _MARGIN
    return ceiling


_LOG_2 = float(np.log(2.0))
_MARGIN = 1e-3
_UPPER_HALF = slice(1, None, 2) if sys.byteorder == "little" else slice(0, None, 2)


def largest(values: Scores, count: int) -> Ids:
    """Ids of the `count` largest of values (V,), largest first, a tie by the lower id."""
    count = min(count, values.size)
    first = int(values.argmax())
    if count == 1:
        return np.array([first])
    if count == 2:  # a pass is much cheaper than a partition
        sides = ((0, values[:first]), (first + 1, values[first + 1 :]))
        seconds = [start + int(side.argmax()) for start, side in sides if side.size]
        return np.array([first, max(seconds, key=values.__getitem__)])
    smallest = np.partition(values, values.size - count)[values.size - count]
    ids = np.flatnonzero(~(values < smallest))
    return ids[np.argsort(-values[ids], kind="stable")][:count]


def parts(size: int) -> list[slice]:
    """Slices of at most `PART` elements that cover `range(size)`."""
    return [slice(start, min(start + PART, size)) for start in range(0, size, PART)]
