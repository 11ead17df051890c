"""From codes in groups, or from values, to rows of blocks: without loss where a kind fits, else to the nearest.

A value is `scale (code - zero)`, whatever the format. A scale counts as float16 if it is one by its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.checkpoints.bits import Array

BLOCK = 32
_CHUNK = 1 << 19  # weights that a thread unpacks at a time
_HALF_MAX = 65504.0


@dataclass(frozen=True)
class Groups:
    """A matrix (N, K) of codes; those of a group along K share a scale and a zero."""

    codes: Callable[[slice], Array]  # of these rows: (n, K) uint8, below 2**bits
    bits: int
    group_of: Array  # (K,) int64: the group of each code
    scales: Array  # (N, groups) float32
    zeros: Array  # (N, groups) or (1, 1), int32
    order: Array | None = None  # (K,) int64: which input feature each code is multiplied with

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return len(self.scales), len(self.group_of)

    @property
    def is_aligned(self) -> bool:
        """No block of 32 has codes of two groups."""
        first = self.group_of[::BLOCK].repeat(BLOCK)
        return np.array_equal(first[: len(self.group_of)], self.group_of)

    def differences(self, rows: slice) -> Array:
        """Codes minus their zeros, (n, K) int16."""
        return self.codes(rows).astype(np.int16) - _along(self.zeros, rows, self.group_of).astype(np.int16)

    def values(self, rows: slice) -> Array:
        """What the codes mean, (n, K) float32: exact where a scale has no more than 15 bits."""
        return self.differences(rows) * _along(self.scales, rows, self.group_of)

    def block_scales(self, rows: slice, dtype: type[np.floating]) -> Array:
        """Bytes of the scales of some rows' blocks, (n, blocks, bytes) uint8."""
        scales = _along(self.scales, rows, self.group_of[::BLOCK])
        return np.ascontiguousarray(scales.astype(dtype)[..., None]).view(np.uint8)

    def block_zeros(self, rows: slice) -> Array:
        """Zeros of some rows' blocks, (n or 1, blocks or 1, 1) uint8."""
        return _along(self.zeros, rows, self.group_of[::BLOCK]).astype(np.uint8)[..., None]


@dataclass(frozen=True)
class Values:
    """A matrix (N, K) of values that no kind of block holds."""

    values: Callable[[slice], Array]  # of these rows: (n, K) float32
    shape: tuple[int, int]
    order: Array | None = None


Matrix = Groups | Values


def becomes(name: str, matrix: Matrix) -> tuple[BlockType, bool]:
    """The kind of block that a matrix is packed in, and whether its values stay the very same.

    Raises:
        ModelError: a scale that is not a finite number.
    """
    if isinstance(matrix, Groups):
        if not np.isfinite(matrix.scales).all():
            raise ModelError(f"{name}: a scale is not a finite number")
        for kind, (fits, _, _) in _KINDS.items():
            if matrix.is_aligned and fits(matrix):
                return kind, True
    return BlockType.Q8_0, False


def pack(name: str, matrix: Matrix) -> tuple[BlockRows, bool]:
    """Rows of blocks, and whether they have the very values. Uses as many threads as torch does.

    Raises:
        ModelError: a scale or a value that is not a finite number.
    """
    kind, is_exact = becomes(name, matrix)
    data = np.empty((matrix.shape[0], -(-matrix.shape[1] // BLOCK), BLOCKS[kind].num_bytes), dtype=np.uint8)

    def write(rows: slice) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            if is_exact and isinstance(matrix, Groups):
                _, head, body = _KINDS[kind]
                start = head(matrix, rows)
                data[rows, :, : start.shape[-1]] = start
                data[rows, :, start.shape[-1] :] = body(matrix, rows)
            else:
                data[rows] = _nearest(name, matrix.values(rows))

    with ThreadPoolExecutor(torch.get_num_threads(), "paceline-packing") as threads:
        list(threads.map(write, chunks(matrix.shape)))
    order = None if matrix.order is None else torch.from_numpy(matrix.order)
    return BlockRows(kind, torch.from_numpy(data.reshape(len(data), -1)), matrix.shape[1], order), is_exact


def chunks(shape: tuple[int, int]) -> Iterator[slice]:
    """Rows in such numbers that few bytes are unpacked at a time."""
    num_rows, k = shape
    step = max(1, _CHUNK // max(1, k))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def floats(tensor: torch.Tensor) -> Array:
    """A tensor of any floats, float32."""
    array: Array = tensor.float().numpy()
    return array


def _nearest(name: str, values: Array) -> Array:
    """Eight bits in groups of 32, (n, blocks, bytes): the largest of a group is 127 times its scale."""
    x = _blocked(values, 0)
    d = (np.abs(x).max(axis=-1, keepdims=True) / np.float32(127)).astype(np.float16)
    if not np.isfinite(d).all():
        raise ModelError(f"{name}: a value is not a number within {127 * _HALF_MAX:.0f}")
    step = np.where(d == 0, np.float32(1), d.astype(np.float32))
    codes = np.rint(x / step).clip(-127, 127).astype(np.int8)
    return np.concatenate([d.view(np.uint8), codes.view(np.uint8)], axis=-1)


def _along(table: Array, rows: slice, group_of: Array) -> Array:
    """A table (N, groups) or (1, 1) for some rows, a column for each of `group_of`."""
    return table if table.shape == (1, 1) else table[rows].take(group_of, axis=1)


def _blocked(rows: Array, padding: int) -> Array:
    """(n, K) as (n, blocks, 32), the last block filled up."""
    missing = -rows.shape[1] % BLOCK
    padded = np.pad(rows, ((0, 0), (0, missing)), constant_values=padding) if missing else rows
    return np.ascontiguousarray(padded).reshape(len(rows), -1, BLOCK)


# What fits into which kind, and how it is written there.


def _is_half(groups: Groups) -> bool:
    """Each scale is a float16 by its value."""
    with np.errstate(over="ignore"):
        return np.array_equal(groups.scales.astype(np.float16), groups.scales)


def _is_middle(groups: Groups) -> bool:
    """Each zero is the middle of the codes."""
    return bool((groups.zeros == 1 << groups.bits - 1).all())


def _is_byte(groups: Groups) -> bool:
    """Each code minus its zero is an int8: by the bits there are, or by looking at every code."""
    if groups.zeros.max() <= 128 and (1 << groups.bits) - 1 - groups.zeros.min() <= 127:
        return True
    differences = (groups.differences(rows) for rows in chunks(groups.shape))
    return all(d.min() >= -128 and d.max() <= 127 for d in differences)


def _half_scale(groups: Groups, rows: slice) -> Array:
    return groups.block_scales(rows, np.float16)


def _float_scale(groups: Groups, rows: slice) -> Array:
    return groups.block_scales(rows, np.float32)


def _half_scale_and_zero(groups: Groups, rows: slice) -> Array:
    scales = _half_scale(groups, rows)
    zeros = np.broadcast_to(groups.block_zeros(rows), (*scales.shape[:2], 1))
    return np.concatenate([scales, zeros, np.zeros_like(zeros)], axis=-1)


def _bytes(groups: Groups, rows: slice) -> Array:
    """Codes minus zero, int8. A zero of 128 is a flipped sign bit: no wider numbers are needed."""
    if groups.zeros.shape == (1, 1) and groups.zeros[0, 0] == 128:
        return _blocked(groups.codes(rows) ^ 0x80, 0)
    return _blocked(groups.differences(rows).astype(np.int8).view(np.uint8), 0)


def _nibbles(groups: Groups, rows: slice) -> Array:
    """Codes as they are, the first half of a block in the low nibbles."""
    return _paired(_blocked(groups.codes(rows), 0))


def _centred_nibbles(groups: Groups, rows: slice) -> Array:
    """Codes with 8 for a zero, also those of fewer bits."""
    shift = 8 - (1 << groups.bits - 1)
    codes = groups.codes(rows)
    return _paired(_blocked(codes + np.uint8(shift) if shift else codes, 8))


def _paired(blocks: Array) -> Array:
    """Two codes of 4 bits a byte: (n, blocks, 32) as (n, blocks, 16)."""
    paired: Array = blocks[..., :16] | blocks[..., 16:] << 4
    return paired


_Part = Callable[[Groups, slice], Array]  # (n, blocks, bytes) uint8

# In this order: the fewest bits first.
_KINDS: dict[BlockType, tuple[Callable[[Groups], bool], _Part, _Part]] = {
    BlockType.Q4_0: (lambda g: g.bits <= 4 and _is_middle(g) and _is_half(g), _half_scale, _centred_nibbles),
    BlockType.Q4_Z: (lambda g: g.bits <= 4 and _is_half(g), _half_scale_and_zero, _nibbles),
    BlockType.Q8_0: (lambda g: _is_half(g) and _is_byte(g), _half_scale, _bytes),
    BlockType.Q8_F: (_is_byte, _float_scale, _bytes),
}
