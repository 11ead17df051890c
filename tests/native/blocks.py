"""Random blocks, and what a linear over them is by definition: numpy's exact arithmetic, bit for bit.

Nothing here shares code with the kernels or with `paceline.formats`: codes and scales are taken from the layouts' own
words (`BlockType`), a weight at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.formats.blocks import BLOCKS, BlockRows, BlockType

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

GROUP = 32
HALVES = {  # places of a block's float16 numbers; any other byte may be anything
    BlockType.Q8_0: (0,),
    BlockType.Q8_F: (),
    BlockType.Q4_0: (0,),
    BlockType.Q4_1: (0, 2),
    BlockType.Q4_Z: (0,),
    BlockType.Q4_K: (0, 2),
    BlockType.Q5_K: (0, 2),
    BlockType.Q6_K: (208,),
}
INPUTS = np.dtype([("q", "i1", GROUP), ("d", "f4"), ("sum", "f4"), ("start", "i4"), ("half", "i4")])


def random_blocks(kind: BlockType, rows: int, k: int, seed: int = 0, byte: int | None = None) -> BlockRows:
    """Random codes and small scales; `byte` makes all bytes but the scales that one: codes at an end of their range."""
    rng, shape = np.random.default_rng([kind, rows, k, seed]), BLOCKS[kind]
    count = -(-k // shape.weights)
    data = rng.integers(0, 256, (rows, count, shape.num_bytes), dtype=np.uint8)
    if byte is not None:
        data[:] = byte
    for place in HALVES[kind]:
        scale = (rng.standard_normal((rows, count, 1)) * 0.02).astype(np.float16)
        data[..., place : place + 2] = scale.view(np.uint8)
    if kind == BlockType.Q8_F:
        data[..., :4] = (rng.standard_normal((rows, count, 1)) * 0.02).astype(np.float32).view(np.uint8)
    if kind == BlockType.Q4_Z:
        data[..., 3] = 0
    return BlockRows(kind, torch.from_numpy(data.reshape(rows, -1)), k)


@dataclass(frozen=True)
class Parts:
    """A weight of N rows and G groups: values are `scale` code + `minimum`."""

    codes: NDArray[np.int64]  # (N, G, 32)
    scale: Floats  # (N, G, H): of a group, or of its two halves
    minimum: Floats | None  # (N, G)


def parts_of(blocks: BlockRows) -> Parts:
    """What the bytes of blocks say, from the layouts' definitions."""
    shape = BLOCKS[blocks.type]
    data = blocks.data.numpy().reshape(len(blocks.data), -1, shape.num_bytes)
    halves = [_half(data, place) for place in HALVES[blocks.type]]
    with np.errstate(all="ignore"):
        if shape.weights == GROUP:
            return _small(blocks.type, data, halves)
        return _super(blocks.type, data, halves)


def _half(data: Bytes, place: int) -> Floats:
    return data[..., place : place + 2].copy().view(np.float16)[..., 0].astype(np.float32)


def _small(kind: BlockType, data: Bytes, halves: list[Floats]) -> Parts:
    first = {BlockType.Q8_0: 2, BlockType.Q8_F: 4, BlockType.Q4_0: 2}.get(kind, 4)
    codes = data[..., first:].astype(np.int64)
    if kind in (BlockType.Q8_0, BlockType.Q8_F):
        codes = np.where(codes > 127, codes - 256, codes)
    else:
        codes = np.concatenate([codes % 16, codes // 16], -1) - (8 if kind == BlockType.Q4_0 else 0)
    d = data[..., :4].copy().view(np.float32)[..., 0] if kind == BlockType.Q8_F else halves[0]
    minimum = halves[1] if kind == BlockType.Q4_1 else None
    if kind == BlockType.Q4_Z:
        minimum = np.float32(0) - d * data[..., 2].astype(np.float32)
    return Parts(codes, d[..., None], minimum)


def _super(kind: BlockType, data: Bytes, halves: list[Floats]) -> Parts:
    wide = data.astype(np.int64)
    codes = np.stack([_code(kind, wide, place) for place in range(256)], -1)
    if kind == BlockType.Q6_K:
        steps = np.where(wide[..., 192:208] > 127, wide[..., 192:208] - 256, wide[..., 192:208])
        scale = halves[0][..., None] * steps.astype(np.float32)
        return Parts(_grouped(codes, GROUP), _grouped(scale, 2), None)
    steps, starts = (np.stack([_six(wide, group, which) for group in range(8)], -1) for which in (0, 1))
    scale = halves[0][..., None] * steps.astype(np.float32)
    minimum = np.float32(0) - halves[1][..., None] * starts.astype(np.float32)
    return Parts(_grouped(codes, GROUP), _grouped(scale, 1), minimum.reshape(len(data), -1))


def _code(kind: BlockType, wide: NDArray[np.int64], place: int) -> NDArray[np.int64]:
    """The code of a weight of super-blocks; that of Q6_K less 32."""
    if kind == BlockType.Q6_K:
        half, quarter, l = place // 128, place % 128 // 32, place % 32
        low = wide[..., 64 * half + l + 32 * (quarter % 2)] >> 4 * (quarter // 2) & 15
        return (low | (wide[..., 128 + 32 * half + l] >> 2 * quarter & 3) << 4) - 32
    group, l = divmod(place, 32)
    nibbles = 48 if kind == BlockType.Q5_K else 16
    low = wide[..., nibbles + 32 * (group // 2) + l] >> 4 * (group % 2) & 15
    return low if kind == BlockType.Q4_K else low | (wide[..., 16 + l] >> group & 1) << 4


def _six(wide: NDArray[np.int64], group: int, which: int) -> NDArray[np.int64]:
    """The scale (0) or minimum (1) of a group in Q4_K's and Q5_K's twelve bytes."""
    b = [wide[..., 4 + i] for i in range(12)]
    if group < 4:
        return b[group + 4 * which] & 63
    low = b[group + 4] >> 4 if which else b[group + 4] & 15
    return low | (b[group] if which else b[group - 4]) >> 6 << 4


def _grouped(values: NDArray[np.generic], size: int) -> NDArray:
    return values.reshape(len(values), -1, size)


def inputs_of(x: Floats) -> NDArray[np.void]:
    """(M, G) `INPUTS` of x (M, K): padded to whole super-blocks, each group rounded to int8 by its largest value."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % 256)))
    groups = padded.reshape(len(x), -1, GROUP)
    found = np.zeros(groups.shape[:2], INPUTS)
    with np.errstate(all="ignore"):
        most = np.abs(groups).max(-1)
        q = np.rint(groups * (np.float32(127) / most)[..., None])  # to nearest, ties to even
        is_sound = np.isfinite(groups).all(-1) & ~(most < np.float32(1e-30))
        q = np.where(is_sound[..., None], q, 0).astype(np.int64)
        d = np.where(is_sound, most / np.float32(127), np.float32(0))
        d[~np.isfinite(groups).all(-1)] = np.nan
        found["q"], found["d"], found["sum"] = q, d, d * q.sum(-1).astype(np.float32)
    found["start"], found["half"] = -8 * q.sum(-1), -8 * q[..., :16].sum(-1)
    return found


def fused(a: Floats, b: Floats, c: Floats) -> Floats:
    """a b + c of float32, rounded once: float64 rounds the sum to odd, so that the second rounding is the right one."""
    with np.errstate(all="ignore"):
        product, wide = a.astype(np.float64) * b, c.astype(np.float64)  # the product is exact
        total = product + wide
        back = total - product
        error = (product - (total - back)) + (wide - back)
        bits = total.view(np.int64)
        is_inexact = np.isfinite(total) & (error != 0) & (bits % 2 == 0)
        odd = np.where(is_inexact, bits + np.where((error > 0) == (total > 0), 1, -1), bits)
        return odd.view(np.float64).astype(np.float32)


def linear(parts: Parts, x: Floats, bias: Floats | None = None) -> Floats:
    """(M, N) float32: the chain over groups that csrc/quantized.h promises."""
    inputs = inputs_of(x)
    total = np.zeros((len(x), len(parts.codes)), np.float32)
    for g in range(parts.codes.shape[1]):
        q, d, codes = inputs["q"][:, g].astype(np.int64), inputs["d"][:, g, None], parts.codes[:, g]
        with np.errstate(all="ignore"):
            for part, which in enumerate(np.split(np.arange(GROUP), parts.scale.shape[2])):
                dot = (q[:, which] @ codes[:, which].T).astype(np.float32)
                total = fused(dot, parts.scale[None, :, g, part] * d, total)
            if parts.minimum is not None:
                total = fused(parts.minimum[None, :, g], inputs["sum"][:, g, None], total)
    return total if bias is None else total + bias


def exact(parts: Parts, x: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """The product in float64 of the values with the rounded inputs, the sum of its terms' sizes, and their number."""
    inputs = inputs_of(x)
    q, d = inputs["q"].astype(np.float64), inputs["d"].astype(np.float64)
    q = q[:, : parts.codes.shape[1]] * d[:, : parts.codes.shape[1], None]
    values = parts.codes * np.repeat(parts.scale.astype(np.float64), GROUP // parts.scale.shape[2], -1)
    halves = np.split(np.arange(GROUP), parts.scale.shape[2])
    terms = [np.einsum("mgi,ngi->mng", q[..., half], values[..., half]) for half in halves]
    if parts.minimum is not None:
        terms.append(np.einsum("mg,ng->mng", q.sum(-1), parts.minimum.astype(np.float64)))
    return sum(t.sum(-1) for t in terms), sum(np.abs(t).sum(-1) for t in terms), len(terms) * parts.codes.shape[1]
