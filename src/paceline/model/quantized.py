"""A transformers model of quantised weights: its linears and embeddings hold blocks, all else is float32.

The modules here are the reference: they multiply, by PyTorch's operations, the values of blocks with inputs rounded as
the kernels round them. `numerics.apply` puts native ones in their places; what load compares is those two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.model.linears import NativeLinear, values_of
from paceline.native.ops import run
from paceline.native.quantized import QuantizedWeight

_PIECE = 2**22  # values that the reference has as floats at a time
_GROUP = 32


_is_quick: ContextVar[bool] = ContextVar("paceline_quick", default=False)


@contextmanager
def quickly() -> Iterator[None]:
    """Have the kernels multiply while a `with` lasts: for whoever looks at shapes alone."""
    token = _is_quick.set(True)
    try:
        yield
    finally:
        _is_quick.reset(token)


class QuantizedLinear(nn.Module):
    """A linear over blocks: (..., K) to (..., N) float32."""

    bias: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.packed = weight
        self.register_buffer("bias", bias)
        self.register_buffer("codes", weight.data, persistent=False)
        self.in_features, self.out_features = weight.k, weight.num_columns
        self.weight = values_of(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product with the blocks' values, a piece of them at a time; by the kernels within `quickly`."""
        if _is_quick.get():
            return NativeLinear(self.packed, self.bias)(x)  # type: ignore[no-any-return]
        inputs = _rounded(x if self.packed.order is None else x.index_select(-1, self.packed.order))
        count = max(1, _PIECE // self.packed.k)
        starts = range(0, self.out_features, count)
        out = torch.cat([inputs @ self.packed.values(i, i + count).t() for i in starts], -1)
        return out if self.bias is None else out + self.bias


class QuantizedEmbedding(nn.Module):
    """An embedding over blocks: (...) int64 to (..., K) float32, times `scale` where the model has one (Gemma)."""

    scale: torch.Tensor | None

    def __init__(self, weight: QuantizedWeight, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.packed = weight
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("codes", weight.data, persistent=False)
        self.weight = values_of(weight, scale)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The blocks' values."""
        flat = tokens.reshape(-1).contiguous()
        out = torch.empty(len(flat), self.packed.k)
        run(self.packed.library, [self.packed.rows(out, flat)])
        rows = out.view(*tokens.shape, -1)
        return rows if self.scale is None else rows * self.scale


def is_quantized(model: nn.Module) -> bool:
    """True for a model with weights in blocks, before native modules have taken their places and after."""
    return any(isinstance(getattr(module, "packed", None), QuantizedWeight) for module in model.modules())


def cache_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype of its keys and values: the model's, but bfloat16 of a quantised one, whose modules have float32."""
    return torch.bfloat16 if is_quantized(model) else model.dtype


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """`x` with each group of 32 features rounded to int8 times a scale, as the kernels round it."""
    pad = -x.shape[-1] % _GROUP
    padded = nn.functional.pad(x.float(), (0, pad))
    groups = padded.view(*padded.shape[:-1], -1, _GROUP)
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most < 1e-30, torch.zeros_like(most), 127.0 / most)
    rounded: torch.Tensor = torch.round(groups * inverse) * (most / 127.0)
    return rounded.flatten(-2)[..., : x.shape[-1]]
