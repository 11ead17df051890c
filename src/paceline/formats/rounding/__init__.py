"""Floats to blocks: scales by search, without calibration data; the same bytes on every machine and for any threads.

Every rounder tries fixed candidates and keeps the first of the best, by operations on single elements whose result
IEEE 754 fixes: no sum's order is left to torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.rounding.groups import round_q4_0, round_q8_0

# (B, weights of a block) float32 to (B, bytes of a block) uint8. Zeros beyond a row's end count for nothing.
Rounder = Callable[[torch.Tensor], torch.Tensor]
_ROUNDERS: dict[BlockType, Rounder] = {BlockType.Q8_0: round_q8_0, BlockType.Q4_0: round_q4_0}
TYPES = tuple(_ROUNDERS)
_TASK = 1 << 20  # weights that a thread takes at a time
_CHUNK = 127 * 256  # weights at a time: just too few for torch to call other threads, so that none waits for another


def quantize(weight: torch.Tensor, block_type: BlockType) -> BlockRows:
    """The weight (N, K), float32, bfloat16 or float16, in blocks of one of `TYPES`.

    Works in as many threads as torch does, each with some 10 MB beyond the result.

    Raises:
        ModelError: the weight holds NaN or infinity, or what is too large for the scales of this type.
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(f"a weight is (N, K) floats, not {tuple(weight.shape)}, {weight.dtype}")
    if block_type not in _ROUNDERS:
        allowed = ", ".join(kind.name for kind in TYPES)
        raise ValueError(f"floats are not rounded to {block_type.name}; allowed: {allowed}")
    shape = BLOCKS[block_type]
    blocks = -(-weight.shape[1] // shape.weights)
    data = torch.empty(len(weight), blocks * shape.num_bytes, dtype=torch.uint8)

    def run(rows: slice) -> None:
        data[rows] = _rounded(weight[rows], block_type).view(-1, data.shape[1])

    with ThreadPoolExecutor(torch.get_num_threads(), "paceline-rounding") as threads:
        list(threads.map(run, _parts(len(weight), _TASK // (blocks * shape.weights))))
    return BlockRows(block_type, data, weight.shape[1])


def _parts(length: int, step: int) -> Iterator[slice]:
    step = max(step, 1)
    return (slice(start, start + step) for start in range(0, length, step))


@torch.no_grad()
def _rounded(rows: torch.Tensor, block_type: BlockType) -> torch.Tensor:
    """The blocks (B, bytes) of some rows, padded with zeros to whole blocks."""
    width = BLOCKS[block_type].weights
    padded = torch.nn.functional.pad(rows.float(), (0, -rows.shape[1] % width)).view(-1, width)
    if not padded.isfinite().all():
        raise ModelError("a weight holds NaN or infinity and cannot be quantised")
    round_blocks = _ROUNDERS[block_type]
    return torch.cat([round_blocks(padded[part]) for part in _parts(len(padded), _CHUNK // width)])
