"""Floats to blocks: scales by search, without calibration data.

The same bytes for any number of threads and on every processor: see native/csrc/rounding.h.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from paceline.errors import ConfigError, ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.native.library import library, status
from paceline.native.ops import FLOATS
from paceline.native.rounding import round_blocks

TYPES = (BlockType.Q8_0, BlockType.Q4_0, BlockType.Q4_1, BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K)
_LARGEST = 65504.0  # of float16, which scales are stored in: no scale is above the weights'
_SLICE = 1 << 24  # weights that are copied at a time where they must be


def quantize(weight: torch.Tensor, block_type: BlockType) -> BlockRows:
    """The weight (N, K), any floats, in blocks of one of `TYPES`; zeros fill a row's last block and count for nothing.

    Needs no memory beyond the result for float32 and bfloat16 with contiguous rows, else 64 MiB.

    Raises:
        ModelError: the weight holds NaN, infinity, or what is beyond 65504.
        ConfigError: the native kernels are missing.
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"a weight is (N, K) floats, not {tuple(weight.shape)}, {weight.dtype}")
    if block_type not in TYPES:
        allowed = ", ".join(kind.name for kind in TYPES)
        raise ValueError(f"floats are not rounded to {block_type.name}; allowed: {allowed}")
    if (kernels := library()) is None:
        raise ConfigError(f"quantising needs the native kernels; {status()}")
    _check(weight)
    shape, k = BLOCKS[block_type], weight.shape[1]
    data = torch.empty(len(weight), -(-k // shape.weights) * shape.num_bytes, dtype=torch.uint8)
    for rows in _slices(weight):
        part = weight[rows].detach()
        if part.dtype not in FLOATS or part.stride(1) != 1:
            part = part.float().contiguous()
        round_blocks(kernels, data[rows], part, block_type)
    return BlockRows(block_type, data, k)


def _check(weight: torch.Tensor) -> None:
    """A NaN comes through as the extremes, which no comparison holds for."""
    extremes = torch.stack(torch.aminmax(weight)) if weight.numel() else torch.zeros(2)
    if not bool((extremes.abs() <= _LARGEST).all()):
        low, high = extremes.tolist()
        raise ModelError(
            f"a weight reaches from {low:g} to {high:g}; allowed for quantising: finite, up to {_LARGEST:g}"
        )


def _slices(weight: torch.Tensor) -> Iterator[slice]:
    """Ranges of rows: all at once where the kernel reads them in place."""
    is_read_in_place = weight.dtype in FLOATS and weight.stride(1) == 1
    step = max(1, len(weight) if is_read_in_place else _SLICE // max(1, weight.shape[1]))
    return (slice(start, start + step) for start in range(0, len(weight), step))
