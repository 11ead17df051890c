"""Floats to blocks of few bits: see csrc/rounding.h."""

from __future__ import annotations

import torch

from paceline.native.layout import Kind
from paceline.native.library import Library
from paceline.native.ops import FLOATS, make, require, run

_BLOCKS = {0: (32, 34), 2: (32, 18), 3: (32, 20), 5: (256, 144), 6: (256, 176), 7: (256, 210)}  # weights, bytes


def round_blocks(library: Library, data: torch.Tensor, weight: torch.Tensor, block_type: int) -> None:
    """Write the blocks of a weight (N, K), float32 or bfloat16 with contiguous rows, to `data` (N, bytes of a row)."""
    require(data.dtype == torch.uint8 and data.is_contiguous(), "blocks are contiguous bytes")
    require(weight.ndim == 2 and len(weight) == len(data), f"{len(data)} rows of blocks for {tuple(weight.shape)}")
    require(block_type in _BLOCKS, f"blocks of kind {block_type}")
    width, size = _BLOCKS[block_type]
    require(data.shape[1] == -(-weight.shape[1] // width) * size, f"rows of {data.shape[1]} bytes")
    require(weight.dtype in FLOATS and weight.stride(1) == 1, f"a weight of {weight.dtype}, {weight.stride()}")
    op = make(Kind.ROUND, weight.shape, (data, weight))
    op.function = block_type
    run(library, [op])
