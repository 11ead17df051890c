"""The MAP kernel: a function of values, over any strides, in float32 or as 64-bit integers.

Results are rounded where PyTorch rounds them, so a model computes what it would; but each value's bits depend on
its arguments alone, where PyTorch's kernels treat the odd end of a vector differently.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

import torch

from paceline.native.layout import Kind, Op
from paceline.native.ops import FLOATS, make

Call = tuple[Callable[..., Op], Sequence[torch.Tensor], Sequence[torch.Tensor]]  # make, writes, reads
_DTYPES = (*FLOATS, torch.int64, torch.bool)
_INTEGERS = (torch.int64, torch.bool)


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
    LOG = 16
    LOG1P = 17
    EXPM1 = 18
    SOFTPLUS = 19
    FLOOR = 20
    ABSOLUTE = 21
    ADD = 22
    SUBTRACT = 23
    MULTIPLY = 24
    DIVIDE = 25
    MAXIMUM = 26
    MINIMUM = 27
    LESS = 28
    LESS_EQUAL = 29
    GREATER = 30
    GREATER_EQUAL = 31
    EQUAL = 32
    NOT_EQUAL = 33
    WHERE = 34


def map_op(
    function: Function,
    number: float,
    scale: float,
    out: torch.Tensor,
    left: torch.Tensor,
    right: Any = None,
    choice: Any = None,
    in_integers: bool = False,
) -> Op:
    """`out` = function(left, right or `number`, times `scale`); all of one shape, any strides.

    WHERE takes `left` where `choice` is true. Values are computed in float32 or, if asked for, as 64-bit integers.
    """
    given = [out, left, right, choice]
    operands = [t for t in given if t is not None]
    shape, strides = _collapsed(out.shape, [t.stride() for t in operands])
    found = iter(strides)
    op = make(Kind.MAP, shape, given, [None if t is None else next(found) for t in given])
    op.function = function
    op.number[0], op.number[1] = number, scale
    op.size[0] = in_integers
    return op


def map_calls(
    function: Function, out: torch.Tensor, left: Any, right: Any = None, alpha: float = 1, choice: Any = None
) -> list[Call] | None:
    """A function of values as one native operation; None for dtypes that the kernels do not know.

    Arguments are broadcast to the shape of `out`; `right` may be a number, and is multiplied by `alpha`.
    """
    given = (left, right, choice)
    reads = [t for t in given if isinstance(t, torch.Tensor)]
    if not isinstance(left, torch.Tensor) or out.numel() == 0 or any(t.dtype not in _DTYPES for t in (out, *reads)):
        return None
    number = 0.0 if right is None or isinstance(right, torch.Tensor) else float(right)
    are_whole = all(t.dtype in _INTEGERS for t in reads) and number.is_integer() and float(alpha).is_integer()
    in_integers = out.dtype in _INTEGERS and (are_whole or out.dtype == torch.int64)

    def build(result: torch.Tensor, *tensors: torch.Tensor) -> Op:
        placed = iter(tensors)
        left, right, choice = (next(placed) if isinstance(t, torch.Tensor) else None for t in given)
        assert left is not None
        return map_op(function, number, float(alpha), result, left, right, choice, in_integers)

    return [(build, [out], [t if t.shape == out.shape else t.expand(out.shape) for t in reads])]


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
