"""Products with a constant matrix that no linear module makes, such as a router's."""

from __future__ import annotations

from typing import Any

import torch

from paceline.native.elementwise import Call
from paceline.native.library import library
from paceline.native.ops import FLOATS, PackedWeight

PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)
Weights = dict[tuple[int, tuple[int, ...]], PackedWeight]  # by the address and strides of what was packed


def product_calls(weights: Weights, args: Any, out: torch.Tensor) -> list[Call] | None:
    """`x @ matrix`, and a bias before them in `args`, as a native linear; the packed matrix is kept in `weights`."""
    *biases, x, matrix = args
    found = library()
    if found is None or matrix.dtype not in FLOATS or x.dtype != matrix.dtype or x.stride(1) != 1:
        return None
    if any(bias.shape != out.shape[1:] or not bias.is_contiguous() for bias in biases):
        return None
    key = (matrix.data_ptr(), matrix.stride())
    if key not in weights:
        weights[key] = PackedWeight(found, matrix.detach().t())
    return [(weights[key].linear, [out], [x, *biases])]
