"""PyTorch's small operations, as native ones: functions of values, and reductions of rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from paceline.native.layout import Kind, Op
from paceline.native.mapping import Call, Function, map_calls
from paceline.native.ops import FLOATS, make

aten = torch.ops.aten


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
    aten.log.default: Function.LOG,
    aten.log1p.default: Function.LOG1P,
    aten.expm1.default: Function.EXPM1,
    aten.floor.default: Function.FLOOR,
    aten.abs.default: Function.ABSOLUTE,
    aten._to_copy.default: Function.COPY,
    aten.clone.default: Function.COPY,
}
_BINARY = {
    aten.add.Tensor: Function.ADD,
    aten.sub.Tensor: Function.SUBTRACT,
    aten.mul.Tensor: Function.MULTIPLY,
    aten.div.Tensor: Function.DIVIDE,
    aten.add_.Tensor: Function.ADD,
    aten.sub_.Tensor: Function.SUBTRACT,
    aten.mul_.Tensor: Function.MULTIPLY,
    aten.div_.Tensor: Function.DIVIDE,
    aten.maximum.default: Function.MAXIMUM,
    aten.minimum.default: Function.MINIMUM,
    aten.lt.Tensor: Function.LESS,
    aten.lt.Scalar: Function.LESS,
    aten.le.Tensor: Function.LESS_EQUAL,
    aten.le.Scalar: Function.LESS_EQUAL,
    aten.gt.Tensor: Function.GREATER,
    aten.gt.Scalar: Function.GREATER,
    aten.ge.Tensor: Function.GREATER_EQUAL,
    aten.ge.Scalar: Function.GREATER_EQUAL,
    aten.eq.Tensor: Function.EQUAL,
    aten.eq.Scalar: Function.EQUAL,
    aten.ne.Tensor: Function.NOT_EQUAL,
    aten.ne.Scalar: Function.NOT_EQUAL,
}
_FEW = 8  # slices that are added up one by one
_POWERS = {
    -1: Function.RECIPROCAL,
    -0.5: Function.RSQRT,
    0.5: Function.SQRT,
    1: Function.COPY,
    2: Function.SQUARE,
    3: Function.CUBE,
}


def elementwise_calls(func: Any, args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    """The native operations that compute what `func` did value by value; None if the kernels do not know it."""
    if func in _UNARY:
        return map_calls(_UNARY[func], out, args[0])
    if func in _BINARY:
        return map_calls(_BINARY[func], out, args[0], args[1], kwargs.get("alpha", 1))
    special = _SPECIAL.get(func)
    return special(args, kwargs, out) if special is not None else None


def _gelu(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    exact = kwargs.get("approximate", "none") == "none"
    return map_calls(Function.GELU if exact else Function.GELU_TANH, out, args[0])


def _power(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    function = _POWERS.get(args[1])
    return None if function is None else map_calls(function, out, args[0])


def _softplus(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    beta, threshold = (list(args[1:]) + [1, 20][len(args) - 1 :])[:2]
    if beta != 1 or threshold < 20:  # beyond 20, x and softplus(x) are the same float
        return None
    return map_calls(Function.SOFTPLUS, out, args[0])


def _clamp(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    return _in_turn(out, args[0], [(Function.MAXIMUM, low), (Function.MINIMUM, high)])


def _clamp_min(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    return map_calls(Function.MAXIMUM, out, *args)


def _clamp_max(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    return map_calls(Function.MINIMUM, out, *args)


def _reverse_subtract(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    if kwargs.get("alpha", 1) != 1 or len(args) > 2:
        return None
    return _in_turn(out, args[0], [(Function.MULTIPLY, -1), (Function.ADD, args[1])])


def _in_turn(out: torch.Tensor, value: torch.Tensor, functions: Sequence[tuple[Function, Any]]) -> list[Call] | None:
    """Functions of two arguments one after the other, without those whose second argument is None."""
    given = [(function, right) for function, right in functions if right is not None]
    parts = [map_calls(function, out, out if i else value, right) for i, (function, right) in enumerate(given)]
    return joined(parts) or None


def _whole_quotient(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    if out.dtype != torch.int64 or kwargs.get("rounding_mode", "floor") != "floor":
        return None
    return map_calls(Function.DIVIDE, out, args[0], args[1])


def _truth(function: Function) -> Callable[[Any, Any, Any], list[Call] | None]:
    """A function of truth values alone."""

    def calls(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
        if any(t.dtype != torch.bool for t in args):
            return None
        return map_calls(function, out, args[0], args[1] if len(args) > 1 else 0)

    return calls


def _where(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    return map_calls(Function.WHERE, out, args[1], args[2], choice=args[0])


def _masked_fill(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    value = args[2] if isinstance(args[2], torch.Tensor) else torch.tensor(args[2], dtype=out.dtype)
    return map_calls(Function.WHERE, out, value, args[0], choice=args[1])


def _copy(args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    return map_calls(Function.COPY, args[0], args[1])


def _reduction(is_sum: bool) -> Callable[[Any, Any, Any], list[Call] | None]:
    """The mean or the sum of one dimension."""

    def calls(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
        x, dims = args[0], list(args[1] or ())
        keepdim = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
        if x.dtype not in FLOATS or out.dtype not in FLOATS or len(dims) != 1:
            return None
        kept = out if keepdim else out.unsqueeze(dims[0])
        if dims[0] % x.ndim == x.ndim - 1:
            return [(functools.partial(_reduce_op, is_sum), [kept], [x])]
        return _slice_by_slice(x, dims[0], kept, is_sum) if x.shape[dims[0]] <= _FEW else None

    return calls


def _slice_by_slice(x: torch.Tensor, dim: int, out: torch.Tensor, is_sum: bool) -> list[Call] | None:
    """The sum of a short dimension, or its mean, one slice after the other, in float32."""
    count = x.shape[dim]
    total = torch.empty(out.shape)
    slices = [x.narrow(dim, i, 1) for i in range(count)]
    steps = [map_calls(Function.COPY, total, slices[0])]
    steps += [map_calls(Function.ADD, total, total, part) for part in slices[1:]]
    return joined([*steps, map_calls(Function.DIVIDE, out, total, 1 if is_sum else count)])


def joined(parts: Sequence[list[Call] | None]) -> list[Call] | None:
    """Calls one after the other; None if the kernels do not know some of them."""
    calls: list[Call] = []
    for part in parts:
        if part is None:
            return None
        calls += part
    return calls


def _deviation(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    """The standard deviation of the last dimension, without correction."""
    x, dims = args[0], list(args[1] or ())
    if x.dtype != torch.float32 or kwargs.get("correction", 1) != 0 or dims not in ([-1], [x.ndim - 1]):
        return None
    kept = out if kwargs.get("keepdim", False) else out.unsqueeze(-1)
    center, spread = torch.empty(kept.shape), torch.empty(x.shape)
    mean = functools.partial(_reduce_op, False)
    return joined(
        [
            [(mean, [center], [x])],
            map_calls(Function.SUBTRACT, spread, x, center),
            map_calls(Function.SQUARE, spread, spread),
            [(mean, [kept], [spread])],
            map_calls(Function.SQRT, kept, kept),
        ]
    )


def _reduce_op(is_sum: bool, out: torch.Tensor, x: torch.Tensor) -> Op:
    op = make(Kind.MEAN, x.shape, [out, x])
    op.size[0] = is_sum
    return op


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


_SPECIAL: dict[Any, Callable[[Any, Any, Any], list[Call] | None]] = {
    aten.gelu.default: _gelu,
    aten.pow.Tensor_Scalar: _power,
    aten.softplus.default: _softplus,
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _clamp_min,
    aten.clamp_max.default: _clamp_max,
    aten.rsub.Scalar: _reverse_subtract,
    aten.rsub.Tensor: _reverse_subtract,
    aten.floor_divide.default: _whole_quotient,
    aten.logical_not.default: _truth(Function.EQUAL),
    aten.bitwise_not.default: _truth(Function.EQUAL),
    aten.logical_and.default: _truth(Function.MINIMUM),
    aten.bitwise_and.Tensor: _truth(Function.MINIMUM),
    aten.logical_or.default: _truth(Function.MAXIMUM),
    aten.bitwise_or.Tensor: _truth(Function.MAXIMUM),
    aten.where.self: _where,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten.copy_.default: _copy,
    aten.mean.dim: _reduction(is_sum=False),
    aten.sum.dim_IntList: _reduction(is_sum=True),
    aten.std.correction: _deviation,
    aten.native_layer_norm.default: _layer_norm,
}
