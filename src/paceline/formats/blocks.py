"""Rows of quantised blocks: the one form in which a quantised weight reaches the kernels, whatever file it came from.

Blocks are laid out as in ggml's files (ggml-common.h), along K, low nibbles first; two kinds are our own, for what
other formats hold and ggml does not. A block's values are exactly what its bytes say: re-packing is all that a kernel
does with them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import torch


class BlockType(enum.IntEnum):
    """Kinds of blocks with a kernel, numbered as in csrc/quantized.h; d, m, z and s are a block's or a group's own."""

    Q8_0 = 0  # d (float16), 32 int8: d q
    Q8_F = 1  # d (float32), 32 int8: d q; our own
    Q4_0 = 2  # d (float16), 16 bytes of nibbles: d (q - 8)
    Q4_1 = 3  # d, m (float16), 16 bytes: d q + m
    Q4_Z = 4  # d (float16), z (uint8), a zero byte, 16 bytes as in Q4_0: d (q - z); our own
    Q4_K = 5  # of 256: d, dmin (float16), 12 bytes of 6-bit scales and minimums, 128 bytes: d s q - dmin m
    Q5_K = 6  # of 256: the same with 32 bytes of fifth bits before the nibbles
    Q6_K = 7  # of 256: 128 bytes low, 64 bytes high, 16 int8 scales, d (float16): d s (q - 32), groups of 16


class Shape(NamedTuple):
    """Weights and bytes of a block."""

    weights: int
    num_bytes: int


BLOCKS = {
    BlockType.Q8_0: Shape(32, 34),
    BlockType.Q8_F: Shape(32, 36),
    BlockType.Q4_0: Shape(32, 18),
    BlockType.Q4_1: Shape(32, 20),
    BlockType.Q4_Z: Shape(32, 20),
    BlockType.Q4_K: Shape(256, 144),
    BlockType.Q5_K: Shape(256, 176),
    BlockType.Q6_K: Shape(256, 210),
}


@dataclass(frozen=True)
class BlockRows:
    """A weight (N, K) in blocks: `data` (N, bytes of a row) uint8, rows contiguous; K may end within the last block.

    Values beyond K must be zero codes or are multiplied by zeros. `order` (K,) int64, if given, says which input
    feature each k is multiplied with: GPTQ's activation order.
    """

    type: BlockType
    data: torch.Tensor
    k: int
    order: torch.Tensor | None = None

    def __post_init__(self) -> None:
        shape = BLOCKS[self.type]
        wanted = -(-self.k // shape.weights) * shape.num_bytes
        if self.data.ndim != 2 or self.data.dtype != torch.uint8 or self.data.shape[1] != wanted:
            raise ValueError(
                f"{self.type.name} rows of {self.k} weights are {tuple(self.data.shape)}, {self.data.dtype}; "
                f"allowed: (N, {wanted}), torch.uint8"
            )

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.data)

    @property
    def bits_per_weight(self) -> float:
        """Bits that the blocks take for each weight."""
        return 8 * self.data.shape[1] / self.k
