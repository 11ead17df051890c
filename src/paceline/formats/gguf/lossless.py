"""Blocks of ggml that have no kernel, in the blocks of one that has: the same values, laid out otherwise.

Where a block's values are 8-bit numbers times a scale for each 32 of them, they become Q8_0, or Q8_F if a scale is not
a float16 (IQ4_XS multiplies two; MXFP4 goes beyond float16). Q3_K's groups of 16 become Q6_K's.
Layouts: dequantize_row_* in ggml-quants.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch

from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.gguf.kinds import NAMED

GROUP: Final = 32
_CHUNK = 1 << 20  # weights unpacked at a time
_NIBBLES = torch.tensor([0, 4], dtype=torch.uint8)
_PAIRS = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
_BITS = torch.arange(8, dtype=torch.uint8)
_POWERS_OF_3 = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8)
_IQ4 = torch.tensor([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=torch.int8)
_FP4 = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=torch.int8)


class Codes(NamedTuple):
    """Blocks taken apart: value = scale of the group times code."""

    codes: torch.Tensor  # (blocks, weights) int8
    scales: torch.Tensor  # (blocks, weights / 32) float32, exact


def to_eight_bits(kind: str, data: torch.Tensor, k: int) -> BlockRows:
    """Rows (N, bytes) of a kind in `CODES` as Q8_0, or as Q8_F if a scale is not a float16."""
    unpack, weights = CODES[kind], NAMED[kind].weights
    blocks = data.reshape(-1, NAMED[kind].num_bytes)
    codes = torch.empty(len(blocks) * weights // GROUP, GROUP, dtype=torch.int8)
    scales = torch.empty(len(codes), dtype=torch.float32)
    step, groups = _CHUNK // weights, weights // GROUP
    for i in range(0, len(blocks), step):
        part = unpack(blocks[i : i + step])
        place = slice(i * groups, i * groups + len(part.codes) * groups)
        codes[place] = part.codes.reshape(-1, GROUP)
        scales[place] = part.scales.flatten()
    scales[~codes.any(1)] = 0.0  # nothing but zeros: any scale says so
    is_half = torch.equal(scales.half().float(), scales)
    kind_of_blocks = BlockType.Q8_0 if is_half else BlockType.Q8_F
    heads = (scales.half() if is_half else scales).view(torch.uint8).reshape(len(codes), -1)
    out = torch.cat([heads, codes.view(torch.uint8)], dim=1)
    return BlockRows(kind_of_blocks, out.reshape(len(data), -1), k)


def q3_k_to_q6_k(data: torch.Tensor, k: int) -> BlockRows:
    """Rows (N, bytes) of Q3_K as Q6_K: the same scales, codes of -4..3 in 6 bits."""
    blocks = data.reshape(-1, NAMED["Q3_K"].num_bytes)
    out = torch.empty(len(blocks), BLOCKS[BlockType.Q6_K].num_bytes, dtype=torch.uint8)
    step = _CHUNK // 256
    for i in range(0, len(blocks), step):
        out[i : i + step] = _q6_k_of_q3_k(blocks[i : i + step])
    return BlockRows(BlockType.Q6_K, out.reshape(len(data), -1), k)


def _q6_k_of_q3_k(blocks: torch.Tensor) -> torch.Tensor:
    mask, low, packed, d = blocks.split_with_sizes([32, 64, 12, 2], dim=1)
    codes = ((low.view(-1, 2, 1, 32) >> _PAIRS.view(1, 1, 4, 1)) & 3).reshape(-1, 256)
    high = ((mask.unsqueeze(1) >> _BITS.view(1, 8, 1)) & 1).reshape(-1, 256)
    six_bits = (codes + 28 + 4 * high).view(-1, 2, 4, 32)  # codes - 4 where the mask's bit is not set, plus 32
    nibbles, pairs = six_bits & 15, six_bits >> 4
    ql = nibbles[:, :, :2] | nibbles[:, :, 2:] << 4
    qh = pairs[:, :, 0] | pairs[:, :, 1] << 2 | pairs[:, :, 2] << 4 | pairs[:, :, 3] << 6
    scales = (packed[:, :8].unsqueeze(1) >> _NIBBLES.view(1, 2, 1)).reshape(-1, 16) & 15
    scales = scales | ((packed[:, 8:].unsqueeze(1) >> _PAIRS.view(1, 4, 1)).reshape(-1, 16) & 3) << 4
    signed = (scales.to(torch.int8) - 32).view(torch.uint8)
    return torch.cat([ql.reshape(-1, 128), qh.reshape(-1, 64), signed, d], dim=1)


def _nibbles(qs: torch.Tensor) -> torch.Tensor:
    """(blocks, 2 n) codes of (blocks, n) bytes whose low nibbles come first."""
    return ((qs.unsqueeze(1) >> _NIBBLES.view(1, 2, 1)) & 15).flatten(1)


def _half(d: torch.Tensor) -> torch.Tensor:
    """(blocks, 1) float32 of (blocks, 2) bytes."""
    return d.contiguous().view(torch.float16).float()


def _q5_0(blocks: torch.Tensor) -> Codes:
    d, high, low = blocks.split_with_sizes([2, 4, 16], dim=1)
    bits = ((high.unsqueeze(2) >> _BITS) & 1).flatten(1)
    return Codes((_nibbles(low) | bits << 4).to(torch.int8) - 16, _half(d))


def _iq4_nl(blocks: torch.Tensor) -> Codes:
    d, qs = blocks.split_with_sizes([2, 16], dim=1)
    return Codes(_IQ4[_nibbles(qs).int()], _half(d))


def _iq4_xs(blocks: torch.Tensor) -> Codes:
    d, high, low, qs = blocks.split_with_sizes([2, 2, 4, 128], dim=1)
    scales = ((low.unsqueeze(2) >> _NIBBLES) & 15) | (((high.unsqueeze(2) >> _PAIRS) & 3) << 4).view(-1, 4, 2)
    codes = _IQ4[_nibbles(qs.reshape(-1, 16)).int()]
    return Codes(codes.view(-1, 256), _half(d) * (scales.view(-1, 8).float() - 32))


def _mxfp4(blocks: torch.Tensor) -> Codes:
    exponent, qs = blocks.split_with_sizes([1, 16], dim=1)
    scales = torch.ldexp(torch.ones(len(blocks), 1, dtype=torch.float64), exponent.int() - 128).float()
    return Codes(_FP4[_nibbles(qs).int()], scales)


def _tq1_0(blocks: torch.Tensor) -> Codes:
    first, second, last, d = blocks.split_with_sizes([32, 16, 4, 2], dim=1)
    powers = _POWERS_OF_3.view(1, 5, 1)
    digits = [(first.unsqueeze(1) * powers), (second.unsqueeze(1) * powers), (last.unsqueeze(1) * powers[:, :4])]
    ternary = (torch.cat([part.flatten(1) for part in digits], dim=1).int() * 3) >> 8
    return Codes(ternary.to(torch.int8) - 1, _half(d).expand(-1, 8))


def _tq2_0(blocks: torch.Tensor) -> Codes:
    qs, d = blocks.split_with_sizes([64, 2], dim=1)
    pairs = (qs.view(-1, 2, 1, 32) >> _PAIRS.view(1, 1, 4, 1)) & 3
    return Codes(pairs.reshape(-1, 256).to(torch.int8) - 1, _half(d).expand(-1, 8))


def _q1_0(blocks: torch.Tensor) -> Codes:
    d, qs = blocks.split_with_sizes([2, 16], dim=1)
    bits = ((qs.unsqueeze(2) >> _BITS) & 1).flatten(1)
    return Codes(2 * bits.to(torch.int8) - 1, _half(d).expand(-1, 4))


CODES: Final[dict[str, Callable[[torch.Tensor], Codes]]] = {
    "Q5_0": _q5_0,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
    "Q1_0": _q1_0,
}
