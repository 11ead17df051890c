"""Products with a constant matrix that no linear module makes, such as a router's."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from paceline.native.elementwise import joined
from paceline.native.library import library
from paceline.native.mapping import Call, Function, map_calls
from paceline.native.ops import FLOATS, PackedWeight

_FEW = 8  # products that are added up one by one
PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)


class Packed(NamedTuple):
    """A constant matrix, kept so that its address is no other's, and what was packed of it."""

    matrix: torch.Tensor
    weight: PackedWeight


Weights = dict[tuple[Any, ...], Packed]  # by the address, shape and strides of the matrix


def product_calls(weights: Weights, args: Any, out: torch.Tensor) -> list[Call] | None:
    """`x @ matrix`, and a bias before them in `args`, as a native linear; the packed matrix is kept in `weights`."""
    *biases, x, matrix = (_flat(tensor) for tensor in args)
    out = _flat(out)
    if x.ndim != 2 or not _fits(matrix, x) or x.stride(1) != 1:
        return None
    if any(bias.shape != out.shape[1:] or not bias.is_contiguous() for bias in biases):
        return None
    packed = _packed(weights, matrix.t())
    return [(packed.linear, [out], [x, *biases])] if packed is not None else None


def left_product_calls(weights: Weights, args: Any, out: torch.Tensor) -> list[Call] | None:
    """`matrix @ x`, a matrix of a constant by columns that depend on the inputs: the linear of each column."""
    *biases, matrix, x = (_flat(tensor) for tensor in args)
    if biases or x.ndim != 2 or not _fits(matrix, x):
        return None
    packed = _packed(weights, matrix)
    if packed is None:
        return None
    rows, products = torch.empty(x.t().shape, dtype=x.dtype), torch.empty(_flat(out).t().shape, dtype=out.dtype)
    before = map_calls(Function.COPY, rows, x.t())
    after = map_calls(Function.COPY, _flat(out), products.t())
    if before is None or after is None:
        return None
    return [*before, (packed.linear, [products], [rows]), *after]


def small_product_calls(args: Any, out: torch.Tensor) -> list[Call] | None:
    """`left @ right` of matrices that both depend on the inputs, (B, M, K) by (B, K, N) with few K: K by K."""
    left, right = args
    count = left.shape[-1]
    if left.ndim != 3 or not 0 < count <= _FEW or left.dtype != torch.float32 or right.dtype != torch.float32:
        return None
    part = torch.empty(out.shape)
    parts = [map_calls(Function.MULTIPLY, out, left[..., :1].expand(out.shape), right[:, :1])]
    for k in range(1, count):
        parts.append(map_calls(Function.MULTIPLY, part, left[..., k : k + 1].expand(out.shape), right[:, k : k + 1]))
        parts.append(map_calls(Function.ADD, out, out, part))
    return joined(parts)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one as its only matrix."""
    return tensor[0] if tensor.ndim == 3 and len(tensor) == 1 else tensor


def _fits(matrix: torch.Tensor, x: torch.Tensor) -> bool:
    return matrix.ndim == 2 and matrix.dtype in FLOATS and x.dtype == matrix.dtype


def _packed(weights: Weights, weight: torch.Tensor) -> PackedWeight | None:
    """A constant weight (N, K), packed once."""
    found = library()
    if found is None:
        return None
    key = (weight.data_ptr(), weight.shape, weight.stride())
    if key not in weights:
        weights[key] = Packed(weight, PackedWeight(found, weight.detach()))
    return weights[key].weight
