"""PyTorch's operations that only move values, as native ones: joining, padding, repeating, looking rows up."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from paceline.native.elementwise import joined
from paceline.native.layout import MAX_DIMS, Kind, Op
from paceline.native.mapping import Call, Function, map_calls
from paceline.native.ops import DTYPES, make

aten = torch.ops.aten


def moving_calls(func: Any, args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    """The native operations that move values as `func` did; None if the kernels do not know it."""
    calls = _MOVES.get(func)
    return calls(args, kwargs, out) if calls is not None else None


def lookup_op(out: torch.Tensor, tokens: torch.Tensor, table: torch.Tensor, *, wraps: bool = False) -> Op:
    """`out` (M, K) = rows of `table` (V, K) by `tokens` (M,) int64; one outside [0, V) gives the nearest row.

    With `wraps`, negative ones count from the end first, as an index of PyTorch does.
    """
    op = make(Kind.GATHER, out.shape, [out, tokens, table])
    op.size[0], op.size[1] = table.shape[0], wraps
    return op


def _copies(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[Call] | None:
    """Each second tensor copied to the first, in order."""
    return joined([map_calls(Function.COPY, place, value) for place, value in pairs if value.numel()])


def _cat(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    pairs, start = [], 0
    for part in args[0]:
        if part.numel() == 0:
            continue
        pairs.append((out.narrow(dim, start, part.shape[dim]), part))
        start += part.shape[dim]
    return _copies(pairs)


def _stack(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return _copies([(out.select(dim, i), part) for i, part in enumerate(args[0])])


def _pad(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    x, pads = args[0], list(args[1])
    value = args[2] if len(args) > 2 else kwargs.get("value", 0)
    if min(pads) < 0:
        return None
    inside = out
    for i in range(len(pads) // 2):
        dim = x.ndim - 1 - i
        inside = inside.narrow(dim, pads[2 * i], x.shape[dim])
    return _copies([(out, torch.as_tensor(value, dtype=out.dtype).expand(out.shape)), (inside, x)])


def _repeat(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    x, repeats = args
    sizes = [1] * (len(repeats) - x.ndim) + list(x.shape)
    one, many = [], []  # the shape of x and that of the result, with a dimension for each repetition
    for repeat, size in zip(repeats, sizes, strict=True):
        one += [size] if repeat == 1 else [1, size]
        many += [size] if repeat == 1 else [repeat, size]
    if len(many) > MAX_DIMS or out.numel() == 0:
        return None
    return _copies([(out.view(many), x.view(one).expand(many))])


def _embedding(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    return _lookup(args[0], args[1], out, wraps=False)


def _index(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    """Rows of a table, by one index into its first dimension."""
    table, indices = args[0], args[1]
    if len(indices) != 1 or indices[0] is None:
        return None
    return _lookup(table, indices[0], out, wraps=True)


def _index_select(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    return _lookup(args[0], args[2], out, wraps=True) if args[1] == 0 else None


def _gather(args: Any, kwargs: Any, out: torch.Tensor) -> list[Call] | None:
    """Values of one row by their places in it."""
    row, dim, index = args[0], args[1], args[2]
    if row.shape[dim] != row.numel() or index.shape[dim] != index.numel() or not row.is_contiguous():
        return None
    return _lookup(row.view(-1, 1), index, out, wraps=False)


def _lookup(table: torch.Tensor, tokens: torch.Tensor, out: torch.Tensor, wraps: bool) -> list[Call] | None:
    if (
        not table.ndim
        or table.numel() == 0
        or tokens.numel() == 0
        or table.dtype not in DTYPES
        or table.dtype != out.dtype
    ):
        return None
    if tokens.dtype != torch.int64 or not tokens.is_contiguous() or not table[0].is_contiguous():
        return None
    rows = table.view(len(table), -1) if table.is_contiguous() else table if table.ndim == 2 else None
    if rows is None:
        return None
    make_op = functools.partial(lookup_op, wraps=wraps)
    return [(make_op, [out.view(-1, rows.shape[1])], [tokens.view(-1), rows])]


_MOVES: dict[Any, Callable[[Any, Any, Any], list[Call] | None]] = {
    aten.cat.default: _cat,
    aten.stack.default: _stack,
    aten.constant_pad_nd.default: _pad,
    aten.repeat.default: _repeat,
    aten.embedding.default: _embedding,
    aten.index.Tensor: _index,
    aten.index_select.default: _index_select,
    aten.gather.default: _gather,
}
