"""What blocks mean, in numpy and float64: written from the layouts alone, and of no use to the package."""

from __future__ import annotations

import numpy as np

from paceline.formats.blocks import BlockRows, BlockType


def values(rows: BlockRows) -> np.ndarray:
    """(N, K) float64, each column at its input feature."""
    data = rows.data.numpy()
    n = len(data)
    blocks = _KINDS[rows.type](data.reshape(n, -1, _BYTES[rows.type])).reshape(n, -1)[:, : rows.k]
    if rows.order is None:
        return blocks
    natural = np.empty_like(blocks)
    natural[:, rows.order.numpy()] = blocks
    return natural


def _half(b: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(b[..., :2]).view("<f2").astype(np.float64)


def _q8_0(b: np.ndarray) -> np.ndarray:
    return _half(b) * b[..., 2:].view(np.int8).astype(np.float64)


def _q8_f(b: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(b[..., :4]).view("<f4").astype(np.float64) * b[..., 4:].view(np.int8)


def _q4(b: np.ndarray) -> np.ndarray:
    return np.concatenate([b & 15, b >> 4], axis=-1).astype(np.float64)


_BYTES = {BlockType.Q8_0: 34, BlockType.Q8_F: 36, BlockType.Q4_0: 18, BlockType.Q4_Z: 20}
_KINDS = {
    BlockType.Q8_0: _q8_0,
    BlockType.Q8_F: _q8_f,
    BlockType.Q4_0: lambda b: _half(b) * (_q4(b[..., 2:]) - 8),
    BlockType.Q4_Z: lambda b: _half(b) * (_q4(b[..., 4:]) - b[..., 2:3]),
}
