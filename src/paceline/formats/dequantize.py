"""The values that blocks stand for.

Every product of a block's numbers fits float32's 24 bits, so float32 is right up to the one rounding of the last
operation: that of `d s q - dmin m`, of `d q + m`, or of the float32 scale of Q8_F. Float64 rounds nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from paceline.formats.blocks import BLOCKS, BlockRows, BlockType

_ALL = slice(None)


def dequantize(rows: BlockRows, dtype: torch.dtype = torch.float32, part: slice = _ALL) -> torch.Tensor:
    """The weight (N, K) of some rows, all unless `part` says which; column j is of input feature j, whatever `order`.

    float64 has the exact values, float32 these rounded once; narrower types are rounded from float32.
    """
    data, shape = rows.data[part], BLOCKS[rows.type]
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    values = _DECODERS[rows.type](data.reshape(-1, shape.num_bytes), exact)
    values = values.view(len(data), data.shape[1] // shape.num_bytes * shape.weights)[:, : rows.k].to(dtype)
    if rows.order is None:
        return values.contiguous()
    weight = torch.empty_like(values)
    weight[:, rows.order] = values
    return weight


def halves(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes (B, 2 n) as the n float16 numbers that they are."""
    return data.contiguous().view(torch.float16).to(dtype)


def nibbles(data: torch.Tensor) -> torch.Tensor:
    """Bytes (..., n) as uint8 (..., 2, n): the low halves, then the high ones."""
    return torch.stack((data & 15, data >> 4), dim=-2)


def scales_and_minimums(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The 12 bytes (B, 12) of Q4_K and Q5_K: eight 6-bit scales and minimums, (B, 8) uint8 each."""
    low, high, rest = data[:, :4], data[:, 4:8], data[:, 8:]
    scales = torch.cat((low & 63, rest & 15 | low >> 6 << 4), dim=1)
    return scales, torch.cat((high & 63, rest >> 4 | high >> 6 << 4), dim=1)


def _q8_0(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return halves(blocks[:, :2], dtype) * blocks[:, 2:].view(torch.int8).to(dtype)


def _q8_f(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return blocks[:, :4].contiguous().view(torch.float32).to(dtype) * blocks[:, 4:].view(torch.int8).to(dtype)


def _q4_0(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return halves(blocks[:, :2], dtype) * (nibbles(blocks[:, 2:]).flatten(1).to(dtype) - 8)


def _q4_1(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    d, m = halves(blocks[:, :4], dtype).chunk(2, dim=1)
    return d * nibbles(blocks[:, 4:]).flatten(1).to(dtype) + m


def _q4_z(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    q = nibbles(blocks[:, 4:]).flatten(1).to(dtype)
    return halves(blocks[:, :2], dtype) * (q - blocks[:, 2:3].to(dtype))


def _with_minimums(blocks: torch.Tensor, codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Q4_K's and Q5_K's values of codes (B, 8, 32)."""
    d, dmin = halves(blocks[:, :4], dtype).chunk(2, dim=1)
    scales, minimums = scales_and_minimums(blocks[:, 4:16])
    steps, starts = d * scales.to(dtype), dmin * minimums.to(dtype)
    return (steps[..., None] * codes.to(dtype) - starts[..., None]).flatten(1)


def _q4_k(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    codes = nibbles(blocks[:, 16:].reshape(-1, 4, 32)).flatten(1, 2)
    return _with_minimums(blocks, codes, dtype)


def _q5_k(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    fifth = torch.stack([blocks[:, 16:48] >> group & 1 for group in range(8)], dim=1)
    codes = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).flatten(1, 2)
    return _with_minimums(blocks, codes | fifth << 4, dtype)


def _q6_k(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    low = nibbles(blocks[:, :128].reshape(-1, 2, 64)).view(-1, 2, 4, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    top = torch.stack([high >> shift & 3 for shift in (0, 2, 4, 6)], dim=2)
    codes = (low | top << 4).view(-1, 16, 16).to(dtype) - 32
    scales = halves(blocks[:, 208:], dtype) * blocks[:, 192:208].view(torch.int8).to(dtype)
    return (scales[..., None] * codes).flatten(1)


_DECODERS: dict[BlockType, Callable[[torch.Tensor, torch.dtype], torch.Tensor]] = {
    BlockType.Q8_0: _q8_0,
    BlockType.Q8_F: _q8_f,
    BlockType.Q4_0: _q4_0,
    BlockType.Q4_1: _q4_1,
    BlockType.Q4_Z: _q4_z,
    BlockType.Q4_K: _q4_k,
    BlockType.Q5_K: _q5_k,
    BlockType.Q6_K: _q6_k,
}
