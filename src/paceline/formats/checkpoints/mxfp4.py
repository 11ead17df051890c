"""MXFP4 (gpt-oss): sixteen levels, whose halves are integers, times a power of two for each 32: exact in eight bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array, fields, powers
from paceline.formats.checkpoints.found import Found, Settings, Source, expect
from paceline.formats.checkpoints.rows import BLOCK, Groups
from paceline.formats.checkpoints.tensors import Tensors

_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12)  # twice the values of e2m1
_ZERO = 128
_CODES = np.array([_ZERO + x for x in _LEVELS] + [_ZERO - x for x in _LEVELS], dtype=np.uint8)


def find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """Experts: `gate_up_proj_blocks` (E, rows, groups, 16) and `gate_up_proj_scales` (E, rows, groups)."""
    for name in list(tensors):
        if name.endswith("_blocks"):
            parameter = name.removesuffix("_blocks")
            yield Found(parameter, (name, f"{parameter}_scales"), partial(_read, tensors, parameter))


def _read(tensors: Tensors, name: str) -> Source:
    """All experts as one matrix (E rows, K): the model of transformers keeps each of them transposed."""
    shape = tensors.entry(f"{name}_blocks").shape
    expect(tensors, f"{name}_blocks", ("U8",), (*shape[:-1], BLOCK // 2))
    expect(tensors, f"{name}_scales", ("U8",), shape[:-1])
    k = shape[-2] * BLOCK if len(shape) > 1 else 0
    octets = tensors[f"{name}_blocks"].reshape(-1, k // 2).numpy()
    return levels(name, octets, tensors[f"{name}_scales"].reshape(len(octets), -1).numpy())


def levels(name: str, octets: Array, exponents: Array) -> Source:
    """Levels (N, K / 2), the even k in the low nibbles, and exponents (N, K / 32), both uint8.

    Raises:
        ModelError: there are none.
    """
    if not octets.size:
        raise ModelError(f"{name} has no weights")

    def codes(rows: slice) -> Array:
        return _CODES[fields(octets[rows], (0, 4), 4)]

    scales = powers(exponents, less=1)
    zero = np.full((1, 1), _ZERO, dtype=np.int32)
    groups = Groups(codes, 8, np.arange(octets.shape[1] * 2) // BLOCK, scales, zero)
    return Source("MXFP4", groups)
