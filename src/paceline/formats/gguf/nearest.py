"""Blocks whose values no kernel computes with, as the nearest Q8_0: a scale for each 32 weights, 8 bits for each."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from paceline.errors import ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.gguf.kinds import NAMED

_CHUNK = 1 << 20  # weights unpacked at a time
_GROUP = 32
_PAIRS = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
_BITS = torch.arange(8, dtype=torch.uint8)
_NIBBLES = torch.tensor([0, 4], dtype=torch.uint8)


def to_nearest(kind: str, data: torch.Tensor, k: int) -> BlockRows:
    """Rows (N, bytes) of any kind as Q8_0.

    Raises:
        ModelError: the kind is one that the `gguf` package unpacks, and it is not installed.
    """
    weights, num_bytes = NAMED[kind].weights, NAMED[kind].num_bytes
    values = _OWN.get(kind) or _by_gguf(kind)
    blocks = data.reshape(-1, num_bytes)
    groups = weights // _GROUP
    out = torch.empty(len(blocks) * groups, BLOCKS[BlockType.Q8_0].num_bytes, dtype=torch.uint8)
    step = _CHUNK // weights
    for i in range(0, len(blocks), step):
        part = nearest_q8_0(values(blocks[i : i + step]).reshape(-1, _GROUP))
        out[i * groups : i * groups + len(part)] = part
    return BlockRows(BlockType.Q8_0, out.reshape(len(data), -1), k)


def nearest_q8_0(values: torch.Tensor) -> torch.Tensor:
    """Blocks (n, 34) uint8 of values (n, 32) float32: the largest becomes 127, rounded half to even."""
    scales = (values.abs().amax(1, keepdim=True) / 127).half()
    divisors = scales.float()
    codes = torch.where(divisors > 0, values / divisors, 0.0).round().clamp(-127, 127).to(torch.int8)
    return torch.cat([scales.view(torch.uint8), codes.view(torch.uint8)], dim=1)


def _half(d: torch.Tensor) -> torch.Tensor:
    return d.contiguous().view(torch.float16).float()


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    d, m, high, low = blocks.split_with_sizes([2, 2, 4, 16], dim=1)
    bits = ((high.unsqueeze(2) >> _BITS) & 1).flatten(1)
    codes = ((low.unsqueeze(1) >> _NIBBLES.view(1, 2, 1)) & 15).flatten(1) | bits << 4
    return _half(d) * codes.float() + _half(m)


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    packed, qs, d, dmin = blocks.split_with_sizes([16, 64, 2, 2], dim=1)
    scales, minimums = _half(d) * (packed & 15).float(), _half(dmin) * (packed >> 4).float()
    codes = ((qs.view(-1, 2, 1, 32) >> _PAIRS.view(1, 1, 4, 1)) & 3).reshape(-1, 16, 16).float()
    return scales.unsqueeze(2) * codes - minimums.unsqueeze(2)


_OWN: Final[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {"Q5_1": _q5_1, "Q2_K": _q2_k}


def _by_gguf(kind: str) -> Callable[[torch.Tensor], torch.Tensor]:
    try:
        quants: Any = importlib.import_module("gguf.quants")
        number = importlib.import_module("gguf").GGMLQuantizationType[kind]
    except (ImportError, KeyError) as error:
        raise ModelError(
            f'{kind} blocks are unpacked by the gguf package; allowed: pip install "paceline[gguf]"'
        ) from error

    def values(blocks: torch.Tensor) -> torch.Tensor:
        with np.errstate(all="ignore"):  # of damaged scales
            return torch.from_numpy(quants.dequantize(blocks.numpy(), number))

    return values
