"""Eight-bit floats with scales of blocks, rows or whole tensors: no integers, so converted to the nearest eight bits.

DeepSeek calls its scales `weight_scale_inv`, and multiplies by them all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array, powers
from paceline.formats.checkpoints.found import Found, Settings, Source
from paceline.formats.checkpoints.rows import Values, floats
from paceline.formats.checkpoints.tensors import Tensors

_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale_inv", "_scale")
_EXPONENTS = (torch.uint8, torch.float8_e8m0fnu)


def find(tensors: Tensors, settings: Settings) -> Iterator[Found]:
    """Every tensor of eight-bit floats: of linears, and of experts in one."""
    for name in list(tensors):
        if tensors.entry(name).dtype in _EIGHT_BITS:
            scale = next((name + s for s in _SCALES if name + s in tensors), name + _SCALES[0])
            yield Found(name, (name, scale), partial(read, tensors, name, scale, _block_size(settings)))


def read(tensors: Tensors, name: str, scale: str, block: tuple[int, int]) -> Source:
    """A tensor (…, N, K) of floats times a grid of scales, as rows of blocks over all that comes before K.

    Raises:
        ModelError: the scales do not fit the tensor.
    """
    weight = tensors[name]
    if weight.ndim not in (2, 3) or not weight.numel():
        raise ModelError(f"{tensors.folder}: {name} is {list(weight.shape)}; allowed: (N, K) or (experts, N, K)")
    experts, (n, k) = weight.shape[:-2].numel(), weight.shape[-2:]
    grid = _grid(tensors, scale, (experts, n, k))
    rows_of = _parts(scale, n, grid.shape[1], block[0]) + np.arange(experts)[:, None] * grid.shape[1]
    columns_of = _parts(scale, k, grid.shape[2], block[1])
    octets = weight.reshape(-1, k).view(torch.uint8).numpy()
    scales, rows_of = grid.reshape(-1, grid.shape[2]), rows_of.reshape(-1)
    meanings = floats(torch.arange(256).byte().view(weight.dtype))

    def values(rows: slice) -> Array:
        scaled: Array = meanings[octets[rows]] * scales[rows_of[rows]].take(columns_of, axis=1)
        return scaled

    kind = "FP8 " + tensors.entry(name).dtype.removeprefix("F8_")
    return Source(kind, Values(values, (experts * n, k)))


def _grid(tensors: Tensors, name: str, shape: tuple[int, int, int]) -> Array:
    """Scales as (experts, rows, columns) float32, however few there are."""
    tensor, experts = tensors[name], shape[0]
    dims = [*tensor.shape]
    if tensor.numel() and (tensor.dtype in _EXPONENTS or tensor.is_floating_point()):
        scales = powers(tensor.view(torch.uint8).numpy()) if tensor.dtype in _EXPONENTS else floats(tensor)
        if scales.size in (1, experts):
            return np.broadcast_to(scales.reshape(-1, 1, 1), (experts, 1, 1))
        if len(dims) == 1 and experts == 1:
            dims = [*dims, 1]
        if len(dims) in (2, 3) and torch.Size(dims[:-2]).numel() == experts:
            return scales.reshape(experts, *dims[-2:])
    raise ModelError(f"{tensors.folder}: {name} is {tensor.dtype} {dims}; allowed: a grid of floats over {list(shape)}")


def _parts(name: str, length: int, count: int, size: int) -> Array:
    """The part that each index is in, of `count` parts: of the size that is said, or equal ones."""
    if -(-length // size) != count:
        if length % count:
            raise ModelError(
                f"{name} has {count} scales along {length}; allowed: {-(-length // size)}, for {size} each"
            )
        size = length // count
    return np.arange(length) // size


def _block_size(settings: Settings) -> tuple[int, int]:
    size = settings.get("weight_block_size") or [128, 128]
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ModelError(f"the quantisation's weight_block_size is {size!r}; allowed: two positive integers")
    return size[0], size[1]
