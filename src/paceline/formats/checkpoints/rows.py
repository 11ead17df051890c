"""From codes in groups, or from values, to rows of blocks: without loss where a kind fits, else to the nearest.

A value is `scale (code - zero)`, whatever the format. A scale counts as float16 if it is one by its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType

BLOCK = 32
_CHUNK = 1 << 23  # weights that are unpacked at a time
_HALF_MAX = 65504.0


@dataclass(frozen=True)
class Groups:
    """A matrix (N, K) of codes; those of a group along K share a scale and a zero."""

    codes: Callable[[slice], torch.Tensor]  # of these rows: (n, K) uint8, below 2**bits
    bits: int
    group_of: torch.Tensor  # (K,) int64: the group of each code
    scales: torch.Tensor  # (N, groups), float
    zeros: torch.Tensor  # (N, groups) or (1, 1), int32
    order: torch.Tensor | None = None  # (K,) int64: which input feature each code is multiplied with

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        return len(self.scales), len(self.group_of)

    @property
    def is_aligned(self) -> bool:
        """No block of 32 has codes of two groups."""
        first = self.group_of[::BLOCK].repeat_interleave(BLOCK)
        return torch.equal(first[: len(self.group_of)], self.group_of)

    def values(self, rows: slice) -> torch.Tensor:
        """What the codes mean, (n, K) float32: exact where a scale has no more than 15 bits."""
        differences = self.codes(rows).int() - _along(self.zeros, rows, self.group_of)
        return differences.float() * _along(self.scales.float(), rows, self.group_of)

    def per_block(self, table: torch.Tensor, rows: slice) -> torch.Tensor:
        """Entries of `scales` or `zeros` for the blocks of some rows: (n or 1, blocks or 1, 1)."""
        return _along(table, rows, self.group_of[::BLOCK]).unsqueeze(-1)


@dataclass(frozen=True)
class Values:
    """A matrix (N, K) of values that no kind of block holds."""

    values: Callable[[slice], torch.Tensor]  # of these rows: (n, K) float32
    shape: tuple[int, int]
    order: torch.Tensor | None = None


Matrix = Groups | Values


def becomes(name: str, matrix: Matrix) -> tuple[BlockType, bool]:
    """The kind of block that a matrix is packed in, and whether its values stay the very same.

    Raises:
        ModelError: a scale that is not a finite number.
    """
    if isinstance(matrix, Groups):
        if not bool(torch.isfinite(matrix.scales).all()):
            raise ModelError(f"{name}: a scale is not a finite number")
        for kind, (fits, _, _) in _KINDS.items():
            if matrix.is_aligned and fits(matrix):
                return kind, True
    return BlockType.Q8_0, False


def pack(name: str, matrix: Matrix) -> tuple[BlockRows, bool]:
    """Rows of blocks, and whether they have the very values.

    Raises:
        ModelError: a scale or a value that is not a finite number.
    """
    kind, is_exact = becomes(name, matrix)
    if is_exact and isinstance(matrix, Groups):
        return _written(kind, matrix), True
    return _nearest(name, matrix), False


def chunks(shape: tuple[int, int]) -> Iterator[slice]:
    """Rows in such numbers that few bytes are unpacked at a time."""
    num_rows, k = shape
    step = max(1, _CHUNK // max(1, k))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def _nearest(name: str, matrix: Matrix) -> BlockRows:
    """Eight bits in groups of 32: the largest of a group is 127 times its scale."""
    data = _room(BlockType.Q8_0, matrix.shape)
    for rows in chunks(matrix.shape):
        x = _blocked(matrix.values(rows), 0)
        d = (x.abs().amax(dim=-1, keepdim=True) / 127).half()
        if not bool(torch.isfinite(d).all()):
            raise ModelError(f"{name}: a value is not a number within {127 * _HALF_MAX:.0f}")
        data[rows, :, :2] = d.view(torch.uint8)
        step = torch.where(d == 0, 1.0, d.float())
        data[rows, :, 2:] = (x / step).round_().clamp_(-127, 127).to(torch.int8).view(torch.uint8)
    return BlockRows(BlockType.Q8_0, data.view(len(data), -1), matrix.shape[1], matrix.order)


def _written(kind: BlockType, groups: Groups) -> BlockRows:
    """Block after block, a few rows at a time."""
    _, head, body = _KINDS[kind]
    data = _room(kind, groups.shape)
    for rows in chunks(groups.shape):
        start = head(groups, rows)
        data[rows, :, : start.shape[-1]] = start
        data[rows, :, start.shape[-1] :] = body(groups, rows)
    return BlockRows(kind, data.view(len(data), -1), groups.shape[1], groups.order)


def _room(kind: BlockType, shape: tuple[int, int]) -> torch.Tensor:
    """Memory for blocks, (N, blocks, bytes)."""
    return torch.empty((shape[0], -(-shape[1] // BLOCK), BLOCKS[kind].num_bytes), dtype=torch.uint8)


def _along(table: torch.Tensor, rows: slice, group_of: torch.Tensor) -> torch.Tensor:
    """A table (N, groups) or (1, 1) for some rows, a column for each of `group_of`."""
    return table if table.shape == (1, 1) else table[rows].index_select(1, group_of)


def _blocked(rows: torch.Tensor, padding: int) -> torch.Tensor:
    """(n, K) as (n, blocks, 32), the last block filled up."""
    missing = -rows.shape[1] % BLOCK
    padded = torch.nn.functional.pad(rows, (0, missing), value=padding) if missing else rows
    return padded.reshape(len(rows), -1, BLOCK)


# What fits into which kind, and how it is written there.


def _is_half(groups: Groups) -> bool:
    """Each scale is a float16 by its value."""
    return torch.equal(groups.scales.half().float(), groups.scales.float())


def _is_middle(groups: Groups) -> bool:
    """Each zero is the middle of the codes."""
    return bool((groups.zeros == 1 << groups.bits - 1).all())


def _is_byte(groups: Groups) -> bool:
    """Each code minus its zero is an int8: by the bits there are, or by looking at every code."""
    low, high = (int(x) for x in groups.zeros.aminmax())
    if high <= 128 and (1 << groups.bits) - 1 - low <= 127:
        return True
    differences = (groups.codes(r).int() - _along(groups.zeros, r, groups.group_of) for r in chunks(groups.shape))
    return all(int(d.min()) >= -128 and int(d.max()) <= 127 for d in differences)


def _half_scale(groups: Groups, rows: slice) -> torch.Tensor:
    return _as_bytes(groups, rows, groups.scales.half())


def _float_scale(groups: Groups, rows: slice) -> torch.Tensor:
    return _as_bytes(groups, rows, groups.scales.float())


def _as_bytes(groups: Groups, rows: slice, scales: torch.Tensor) -> torch.Tensor:
    return groups.per_block(scales, rows).contiguous().view(torch.uint8)


def _half_scale_and_zero(groups: Groups, rows: slice) -> torch.Tensor:
    scales = _half_scale(groups, rows)
    zeros = groups.per_block(groups.zeros, rows).to(torch.uint8).expand(*scales.shape[:2], 1)
    return torch.cat([scales, zeros, torch.zeros_like(zeros)], dim=-1)


def _bytes(groups: Groups, rows: slice) -> torch.Tensor:
    """Codes minus zero, int8. A zero of 128 is a flipped sign bit: no wider numbers are needed."""
    codes = groups.codes(rows)
    if groups.zeros.shape == (1, 1) and int(groups.zeros) == 128:
        return _blocked(codes.bitwise_xor(0x80), 0)
    differences = codes.short() - _along(groups.zeros, rows, groups.group_of).short()
    return _blocked(differences.to(torch.int8).view(torch.uint8), 0)


def _nibbles(groups: Groups, rows: slice) -> torch.Tensor:
    """Codes as they are, the first half of a block in the low nibbles."""
    return _paired(_blocked(groups.codes(rows), 0))


def _centred_nibbles(groups: Groups, rows: slice) -> torch.Tensor:
    """Codes with 8 for a zero, also those of fewer bits."""
    shift = 8 - (1 << groups.bits - 1)
    codes = groups.codes(rows)
    return _paired(_blocked(codes + shift if shift else codes, 8))


def _paired(blocks: torch.Tensor) -> torch.Tensor:
    """Two codes of 4 bits a byte: (n, blocks, 32) as (n, blocks, 16)."""
    return blocks[..., :16] | blocks[..., 16:] << 4


_Part = Callable[[Groups, slice], torch.Tensor]  # (n, blocks, bytes) uint8

# In this order: the fewest bits first.
_KINDS: dict[BlockType, tuple[Callable[[Groups], bool], _Part, _Part]] = {
    BlockType.Q4_0: (lambda g: g.bits <= 4 and _is_middle(g) and _is_half(g), _half_scale, _centred_nibbles),
    BlockType.Q4_Z: (lambda g: g.bits <= 4 and _is_half(g), _half_scale_and_zero, _nibbles),
    BlockType.Q8_0: (lambda g: _is_half(g) and _is_byte(g), _half_scale, _bytes),
    BlockType.Q8_F: (_is_byte, _float_scale, _bytes),
}
