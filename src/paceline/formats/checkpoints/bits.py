"""Small unsigned integers out of int32 words, in a stream of bits that begins with the lowest; nibbles; powers of two.

All in numpy: torch would call its threads for each operation, and one of them that waits for a core holds up the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
WIDTHS = (2, 3, 4, 8)
_WORD = 32


def unpacked(words: Array, bits: int, count: int) -> Array:
    """The first `count` numbers of each row of words (n, w) int32: (n, count) uint8. Numbers may cross words."""
    unpack = _across if bits == 3 else _within_bytes
    return unpack(words, bits)[:, :count]


def num_words(count: int, bits: int) -> int:
    """Words that `count` numbers take."""
    return -(-count * bits // _WORD)


def fields(octets: Array, shifts: tuple[int, ...], bits: int) -> Array:
    """Numbers of `bits` from each byte of (n, b), in the order of `shifts`: (n, b times shifts) uint8."""
    out = np.empty((*octets.shape, len(shifts)), dtype=np.uint8)
    for i, shift in enumerate(shifts):
        np.bitwise_and(octets >> shift, (1 << bits) - 1, out=out[..., i])
    return out.reshape(len(octets), -1)


def powers(exponents: Array, less: int = 0) -> Array:
    """What bytes of e8m0 mean, 2**(byte - 127 - less), float32; 255 is no number."""
    table = [2.0 ** (e - 127 - less) for e in range(255)]
    return np.array([*table, np.nan], dtype=np.float32)[exponents]


def _within_bytes(words: Array, bits: int) -> Array:
    """Numbers of 2, 4 or 8 bits."""
    octets = np.ascontiguousarray(words, dtype="<i4").view(np.uint8)
    return octets if bits == 8 else fields(octets, tuple(range(0, 8, bits)), bits)


def _across(words: Array, bits: int) -> Array:
    """Numbers of any width, out of pairs of words."""
    wide = np.pad(words.astype(np.int64) & 0xFFFFFFFF, ((0, 0), (0, 1)))
    pairs = wide[:, :-1] | (wide[:, 1:] & 0x7FFFFFFF) << _WORD
    starts = np.arange(words.shape[1] * _WORD // bits) * bits
    numbers: Array = pairs[:, starts // _WORD] >> starts % _WORD & (1 << bits) - 1
    return numbers.astype(np.uint8)
