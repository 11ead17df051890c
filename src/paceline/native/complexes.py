"""Complex numbers, as some rotary embeddings turn by them: each is two floats that lie side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from paceline.native.elementwise import joined
from paceline.native.mapping import Call, Function, map_calls

aten = torch.ops.aten


def complex_calls(func: Any, args: Any, kwargs: Any, out: Any) -> list[Call] | None:
    """The native operations that compute what `func` did to complex numbers; None if the kernels do not know it."""
    calls = _COMPLEX.get(func)
    if calls is None or not isinstance(out, torch.Tensor) or out.dtype != torch.complex64 or out.numel() == 0:
        return None
    return calls(args, out)


def _parts(value: torch.Tensor, shape: torch.Size) -> tuple[torch.Tensor, torch.Tensor]:
    """The real and the imaginary parts, where they lie."""
    both = torch.view_as_real(value.expand(shape))
    return both[..., 0], both[..., 1]


def _polar(args: Any, out: torch.Tensor) -> list[Call] | None:
    length, angle = args
    real, imaginary = _parts(out, out.shape)
    return joined(
        [
            map_calls(Function.COS, real, angle),
            map_calls(Function.MULTIPLY, real, real, length),
            map_calls(Function.SIN, imaginary, angle),
            map_calls(Function.MULTIPLY, imaginary, imaginary, length),
        ]
    )


def _multiply(args: Any, out: torch.Tensor) -> list[Call] | None:
    left, right = args
    if not isinstance(left, torch.Tensor) or left.dtype != torch.complex64:
        return None
    real, imaginary = _parts(out, out.shape)
    a, b = _parts(left, out.shape)
    if not isinstance(right, torch.Tensor) or right.dtype == torch.float32:
        return joined([map_calls(Function.MULTIPLY, real, a, right), map_calls(Function.MULTIPLY, imaginary, b, right)])
    if right.dtype != torch.complex64:
        return None
    c, d = _parts(right, out.shape)
    first, second = torch.empty(out.shape), torch.empty(out.shape)
    return joined(
        [
            map_calls(Function.MULTIPLY, first, a, c),
            map_calls(Function.MULTIPLY, second, b, d),
            map_calls(Function.SUBTRACT, real, first, second),
            map_calls(Function.MULTIPLY, first, a, d),
            map_calls(Function.MULTIPLY, second, b, c),
            map_calls(Function.ADD, imaginary, first, second),
        ]
    )


_COMPLEX: dict[Any, Callable[[Any, torch.Tensor], list[Call] | None]] = {
    aten.polar.default: _polar,
    aten.mul.Tensor: _multiply,
}
