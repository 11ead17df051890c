"""Operations for the kernels: built from tensors, every shape and stride checked, then run together."""

from __future__ import annotations

import copy
import ctypes
import threading
from collections.abc import Sequence

import torch

from paceline.native.layout import MAX_DIMS, MAX_VIEWS, PANEL, Kind, Op, View
from paceline.native.library import Library

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int64: 2, torch.uint8: 3, torch.bool: 3}
FLOATS = (torch.float32, torch.bfloat16)


def make(
    kind: Kind,
    shape: Sequence[int],
    tensors: Sequence[torch.Tensor | None],
    strides: Sequence[Sequence[int] | None] = (None,) * MAX_VIEWS,
) -> Op:
    """An operation over tensors on the CPU, of dtypes that the kernels know; `strides` stand for tensors' own.

    Raises:
        ValueError: a tensor that a kernel must not be given.
    """
    op = Op(kind=kind, barrier=1, ndim=len(shape))
    op.tensors = tuple(tensors)  # the struct holds addresses: they must not go away before it does
    op.shape[: len(shape)] = list(shape)
    for view, tensor, others in zip(op.views, tensors, strides, strict=False):
        if tensor is not None:
            _fill(view, tensor, tensor.stride() if others is None else others)
    return op


def _fill(view: View, tensor: torch.Tensor, strides: Sequence[int]) -> None:
    if tensor.device.type != "cpu" or tensor.dtype not in DTYPES or len(strides) > MAX_DIMS:
        raise ValueError(f"a kernel was given {tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}")
    if tensor.data_ptr() % tensor.element_size():
        raise ValueError("a kernel was given a tensor that is not aligned to its elements")
    view.data = tensor.data_ptr()
    view.dtype = DTYPES[tensor.dtype]
    view.strides[: len(strides)] = list(strides)


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` where `condition` fails."""
    if not condition:
        raise ValueError(message)


class PackedWeight:
    """A weight (N, K) in float32 or bfloat16, in panels of 32 columns: the only copy that a kernel needs."""

    def __init__(self, library: Library, weight: torch.Tensor) -> None:
        require(weight.ndim == 2 and weight.dtype in FLOATS, f"a weight of {weight.dtype}, {weight.ndim} dimensions")
        self.library = library
        self.dtype = weight.dtype
        self.num_columns, self.k = weight.shape
        steps = -(-self.k * weight.element_size() // 4)
        padded = -(-self.num_columns // PANEL) * PANEL
        self.data = torch.empty(padded * steps * 4, dtype=torch.uint8)
        library.advise(self.data)
        run(library, [self._op(Kind.PACK, self.data.view(weight.dtype), weight, rows=1)])

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self.data.numel()

    def linear(self, out: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> Op:
        """`out` (M, N) = `x` (M, K) times the weight, plus `bias` (N); sums in float32, rows contiguous."""
        require(x.ndim == 2 and x.shape[1] == self.k and x.dtype == self.dtype, f"x is {tuple(x.shape)}, {x.dtype}")
        require(out.shape == (len(x), self.num_columns), f"out is {tuple(out.shape)}")
        require(out.dtype in FLOATS, f"out is {out.dtype}")
        require(x.stride(1) == 1 and out.stride(1) == 1, "rows must be contiguous")
        if bias is not None:
            require(bias.shape == (self.num_columns,) and bias.is_contiguous(), f"bias is {tuple(bias.shape)}")
        return self._op(Kind.LINEAR, out, x, self.data.view(self.dtype), bias, rows=len(x))

    def rows(self, out: torch.Tensor, tokens: torch.Tensor) -> Op:
        """`out` (M, K) = rows of the weight by `tokens` (M,) int64; one outside [0, N) gives the nearest row."""
        require(self.num_columns > 0, "a weight without rows")
        require(tokens.ndim == 1 and tokens.dtype == torch.int64, f"tokens are {tuple(tokens.shape)}, {tokens.dtype}")
        require(out.shape == (len(tokens), self.k) and out.dtype == self.dtype, f"out is {tuple(out.shape)}")
        require(out.stride(1) == 1, "rows must be contiguous")
        return self._op(Kind.EMBED, out, tokens, self.data.view(self.dtype), rows=len(tokens))

    def values(self) -> torch.Tensor:
        """(N, K): what was packed."""
        out = torch.empty(self.num_columns, self.k, dtype=self.dtype)
        run(self.library, [self.rows(out, torch.arange(self.num_columns))])
        return out

    def _op(self, kind: Kind, *tensors: torch.Tensor | None, rows: int) -> Op:
        return make(kind, (rows, self.num_columns, self.k), tensors)


_scratch = threading.local()


def scratch(num_bytes: int) -> torch.Tensor:
    """Memory of this Python thread's own, at least `num_bytes` of it, kept for the next call."""
    if getattr(_scratch, "memory", None) is None or _scratch.memory.numel() < num_bytes:
        _scratch.memory = torch.empty(num_bytes, dtype=torch.uint8)
    return _scratch.memory  # type: ignore[no-any-return]


class Runner:
    """Operations that run in order, as often as it is called. Results do not depend on the number of threads."""

    def __init__(
        self, library: Library, ops: Sequence[Op] | ctypes.Array[Op], needing: Sequence[int] | None = None
    ) -> None:
        """`needing` are the places of those that need scratch, where it is known."""
        self._library = library
        self._kept = ops
        self._ops = ops if isinstance(ops, ctypes.Array) else (Op * len(ops))(*ops)
        self._count = len(ops)
        places = range(len(ops)) if needing is None else needing
        self.scratch_bytes = max((library.scratch_bytes(ops[i]) for i in places), default=0)  # that each worker needs

    def first(self, count: int) -> Runner:
        """What runs the first of them alone."""
        begun = copy.copy(self)
        begun._count = count
        return begun

    def __call__(self) -> None:
        """Run them."""
        self._library.run(self._ops, self._count, self.scratch_bytes, scratch)

    @property
    def ops(self) -> ctypes.Array[Op]:
        """The operations, where they stay for as long as this does."""
        return self._ops


def run(library: Library, ops: Sequence[Op]) -> None:
    """Run operations once."""
    Runner(library, ops)()
