"""Floats to blocks of few bits: see csrc/rounding.h."""

from __future__ import annotations

import torch

from paceline.native.layout import Kind
from paceline.native.library import Library
from paceline.native.ops import FLOATS, make, require, run


def round_blocks(library: Library, data: torch.Tensor, weight: torch.Tensor, block_type: int) -> None:
    """Write the blocks of a weight (N, K), float32 or bfloat16 with contiguous rows, to `data` (N, bytes of a row)."""
    require(data.dtype == torch.uint8 and data.is_contiguous(), "blocks are contiguous bytes")
    require(weight.ndim == 2 and len(weight) == len(data), f"{len(data)} rows of blocks for {tuple(weight.shape)}")
    require(weight.dtype in FLOATS and weight.stride(1) == 1, f"a weight of {weight.dtype}, {weight.stride()}")
    op = make(Kind.ROUND, weight.shape, (None, weight))
    op.function = block_type
    op.views[0].data = data.data_ptr()
    run(library, [op])
