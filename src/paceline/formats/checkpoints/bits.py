"""Small unsigned integers out of int32 words, in a stream of bits that begins with the lowest; powers of two."""

from __future__ import annotations

import torch

WIDTHS = (2, 3, 4, 8)
_WORD = 32


def unpacked(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first `count` numbers of each row of words (n, w) int32: (n, count) uint8. Numbers may cross words."""
    unpack = _across if bits == 3 else _within_bytes
    return unpack(words.contiguous(), bits)[:, :count]


def num_words(count: int, bits: int) -> int:
    """Words that `count` numbers take."""
    return -(-count * bits // _WORD)


def powers(exponents: torch.Tensor, less: int = 0) -> torch.Tensor:
    """What bytes of e8m0 mean, 2**(byte - 127 - less), float32: exact, which torch's own powers do not promise."""
    table = [2.0 ** (e - 127 - less) for e in range(255)]
    return torch.tensor([*table, float("nan")], dtype=torch.float32)[exponents.view(torch.uint8).int()]


def _within_bytes(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers of 2, 4 or 8 bits; words are little-endian on every machine that torch runs on here."""
    octets = words.reshape(-1).view(torch.uint8).view(len(words), -1)  # by one row: torch minds strides of width 1
    if bits == 8:
        return octets
    parts = [octets >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    return torch.stack(parts, dim=-1).view(len(words), -1)


def _across(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers of any width, out of pairs of words."""
    wide = words.long() & 0xFFFFFFFF
    pairs = wide | torch.nn.functional.pad(wide[:, 1:], (0, 1)) << _WORD
    starts = torch.arange(words.shape[1] * _WORD // bits) * bits
    return (pairs[:, starts // _WORD] >> starts % _WORD & (1 << bits) - 1).to(torch.uint8)
