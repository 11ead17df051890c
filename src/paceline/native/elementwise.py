"""PyTorch's small operations, as native ones: elementwise functions, reductions of rows, lookups.

Results are rounded where PyTorch rounds them, so a model computes what it would; but each value's bits depend on
its arguments alone, where PyTorch's kernels treat the odd end of a vector differently.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from paceline.native.layout import Kind, Op
from paceline.native.ops import FLOATS, make

aten = torch.ops.aten
Call = tuple[Callable[..., Op], Sequence[torch.Tensor], Sequence[torch.Tensor]]  # make, writes, reads


class Function(enum.IntEnum):
    """Functions of the MAP kernel, as in csrc/map.h; from ADD on they take two arguments."""

    COPY = 0
    NEGATE = 1
    EXP = 2
    SIGMOID = 3
    SILU = 4
    TANH = 5
    GELU = 6
    GELU_TANH = 7
    RELU = 8
    RSQRT = 9
    SQRT = 10
    COS = 11
    SIN = 12
    SQUARE = 13
    CUBE = 14
    RECIPROCAL = 15
    ADD = 16
    SUBTRACT = 17
    MULTIPLY = 18
    DIVIDE = 19


_UNARY = {
    aten.neg.default: Function.NEGATE,
    aten.exp.default: Function.EXP,
    aten.sigmoid.default: Function.SIGMOID,
    aten.silu.default: Function.SILU,
    aten.tanh.default: Function.TANH,
    aten.relu.default: Function.RELU,
    aten.rsqrt.default: Function.RSQRT,
    aten.sqrt.default: Function.SQRT,
    aten.cos.default: Function.COS,
    aten.sin.default: Function.SIN,
    aten.reciprocal.default: Function.RECIPROCAL,
    aten._to_copy.default: Function.COPY,
    aten.clone.default: Function.COPY,
}
_BINARY = {
    aten.add.Tensor: Function.ADD,
    aten.sub.Tensor: Function.SUBTRACT,
    aten.mul.Tensor: Function.MULTIPLY,
    aten.div.Tensor: Function.DIVIDE,
    aten.add_.Tensor: Function.ADD,
    aten.mul_.Tensor: Function.MULTIPLY,
}
_POWERS = {0.5: Function.SQRT, 2: Function.SQUARE, 3: Function.CUBE}


def native_calls(func: Any, args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    """The native operations that compute what `func` did; None if the kernels do not know it."""
    if func in _UNARY:
        return _map(_UNARY[func], out, args[0])
    if func in _BINARY:
        return _pair(_BINARY[func], out, args[0], args[1], kwargs.get("alpha", 1))
    special = _SPECIAL.get(func)
    return special(args, kwargs, out) if special is not None else None


def map_op(
    function: Function, number: float, scale: float, out: torch.Tensor, left: torch.Tensor, right: Any = None
) -> Op:
    """`out` = function(left, right or `number`, times `scale`); all of one shape, any strides."""
    operands = [t for t in (out, left, right) if t is not None]
    shape, strides = _collapsed(out.shape, [t.stride() for t in operands])
    op = make(Kind.MAP, shape, [t.as_strided(shape, s) for t, s in zip(operands, strides, strict=True)])
    op.function = function
    op.number[0], op.number[1] = number, scale
    return op


def lookup_op(out: torch.Tensor, tokens: torch.Tensor, table: torch.Tensor) -> Op:
    """`out` (M, K) = rows of `table` (V, K) by `tokens` (M,) int64; one outside [0, V) gives the nearest row."""
    op = make(Kind.GATHER, out.shape, [out, tokens, table])
    op.size[0] = table.shape[0]
    return op


def _collapsed(shape: Sequence[int], strides: list[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """The same elements with as few dimensions as possible."""
    new_shape: list[int] = []
    new_strides: list[list[int]] = [[] for _ in strides]
    for d, size in enumerate(shape):
        if size == 1:
            continue
        if new_shape and all(new[-1] == old[d] * size for new, old in zip(new_strides, strides, strict=True)):
            new_shape[-1] *= size
            for new, old in zip(new_strides, strides, strict=True):
                new[-1] = old[d]
            continue
        new_shape.append(size)
        for new, old in zip(new_strides, strides, strict=True):
            new.append(old[d])
    return new_shape or [1], [new or [1] for new in new_strides]


def _map(function: Function, out: torch.Tensor, value: torch.Tensor) -> list[Call] | None:
    dtypes = (*FLOATS, torch.int64) if function == Function.COPY else FLOATS
    if out.dtype not in FLOATS or value.dtype not in dtypes or out.numel() == 0:
        return None
    return [(functools.partial(map_op, function, 0.0, 1.0), [out], [value.expand(out.shape)])]


def _pair(function: Function, out: torch.Tensor, left: Any, right: Any, alpha: float) -> list[Call] | None:
    tensors = [t for t in (out, left, right) if isinstance(t, torch.Tensor)]
    if any(t.dtype not in FLOATS for t in tensors) or not isinstance(left, torch.Tensor) or out.numel() == 0:
        return None
    reads = [t.expand(out.shape) for t in tensors[1:]]
    number = 0.0 if isinstance(right, torch.Tensor) else float(right)
    return [(functools.partial(map_op, function, number, float(alpha)), [out], reads)]


def _gelu(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    exact = kwargs.get("approximate", "none") == "none"
    return _map(Function.GELU if exact else Function.GELU_TANH, out, args[0])


def _power(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    function = _POWERS.get(args[1])
    return None if function is None else _map(function, out, args[0])


def _copy(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    return _map(Function.COPY, args[0], args[1])


def _cat(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    calls: list[Call] = []
    start = 0
    for part in args[0]:
        if part.numel() == 0:
            continue
        place = out.narrow(dim, start, part.shape[dim])
        copied = _map(Function.COPY, place, part)
        if copied is None:
            return None
        calls += copied
        start += part.shape[dim]
    return calls


def _mean(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    x, dims = args[0], args[1]
    keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    if x.dtype not in FLOATS or out.dtype not in FLOATS or list(dims) not in ([-1], [x.ndim - 1]):
        return None
    return [(lambda o, i: make(Kind.MEAN, i.shape, [o, i]), [out if keepdim else out.unsqueeze(-1)], [x])]


def _sum(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    x, dims = args[0], args[1]
    keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    if x.dtype not in FLOATS or out.dtype not in FLOATS or list(dims) not in ([-1], [x.ndim - 1]):
        return None

    def build(o: torch.Tensor, i: torch.Tensor) -> Op:
        op = make(Kind.MEAN, i.shape, [o, i])
        op.function = 1  # not divided
        return op

    return [(build, [out if keepdim else out.unsqueeze(-1)], [x])]


def _layer_norm(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    x, shape, weight, bias, epsilon = args
    if len(shape) != 1 or x.dtype not in FLOATS or any(w is not None and w.stride(0) != 1 for w in (weight, bias)):
        return None

    def build(result: torch.Tensor, *reads: torch.Tensor) -> Op:
        given = iter(reads[1:])
        op = make(
            Kind.LAYER_NORM,
            result.shape,
            [result, reads[0], *(next(given) if w is not None else None for w in (weight, bias))],
        )
        op.number[0] = epsilon
        return op

    return [(build, [out[0]], [t for t in (x, weight, bias) if t is not None])]


def _embedding(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    table, tokens = args[0], args[1]
    if table.dtype not in FLOATS or table.stride(1) != 1 or tokens.dtype != torch.int64 or not tokens.is_contiguous():
        return None
    if table.shape[0] == 0:
        return None
    return [(lookup_op, [out.view(-1, out.shape[-1])], [tokens.view(-1), table])]


_SPECIAL: dict[Any, Callable[[Any, Any, Any], list[Call] | None]] = {
    aten.gelu.default: _gelu,
    aten.pow.Tensor_Scalar: _power,
    aten.copy_.default: _copy,
    aten.cat.default: _cat,
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _sum,
    aten.native_layer_norm.default: _layer_norm,
    aten.embedding.default: _embedding,
}
