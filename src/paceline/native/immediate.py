"""PyTorch's small operations by the kernels, at once: each value's bits from its arguments alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from paceline.native.elementwise import elementwise_calls
from paceline.native.library import Library
from paceline.native.ops import run

aten = torch.ops.aten
# Their result has the dtype of their arguments, and the shape that these are broadcast to.
_FUNCTIONS = {
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.rsub.Scalar,
    aten.maximum.default,
    aten.minimum.default,
    aten.clamp.default,
    aten.clamp_min.default,
    aten.clamp_max.default,
    aten.neg.default,
    aten.exp.default,
    aten.sigmoid.default,
    aten.silu.default,
    aten.tanh.default,
    aten.gelu.default,
    aten.relu.default,
    aten.softplus.default,
    aten.pow.Tensor_Scalar,
}


class Immediate(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is open, functions of values are the kernels'; the rest is PyTorch's.

    PyTorch's own treat the odd end of a vector, and of a thread's share, in another way than the rest.
    """

    def __init__(self, library: Library) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._library = library

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = _result(func, args)
        calls = elementwise_calls(func, args, kwargs, out) if out is not None else None
        if not calls:
            return func(*args, **kwargs)
        run(self._library, [make(*writes, *reads) for make, writes, reads in calls])
        return out


def _result(func: Any, args: Any) -> torch.Tensor | None:
    """Where the result of a function of floats goes; None for what PyTorch is asked for."""
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if len({tensor.dtype for tensor in tensors}) != 1:
        return None
    if func._schema.is_mutable:
        return tensors[0]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))  # type: ignore[no-untyped-call]
    return torch.empty(shape, dtype=tensors[0].dtype) if func in _FUNCTIONS else None
