"""Linears over weights laid out anew: for the native kernels, and for oneDNN."""

from __future__ import annotations

import torch
from torch import nn

from paceline.native.ops import PackedWeight
from paceline.native.quantized import QuantizedWeight
from paceline.native.recording import emit, emit_shared

_PACK_HINT = 16  # rows that oneDNN lays the weight out for


class NativeLinear(nn.Module):
    """A linear by the native kernels: a row's bits are the same at every row count, place and thread count."""

    def __init__(self, weight: PackedWeight | QuantizedWeight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.packed = weight
        self.bias = bias.detach() if bias is not None else None
        self.in_features, self.out_features = weight.k, weight.num_columns

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self.packed.data] if self.bias is None else [self.packed.data, self.bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) to (..., N), in the dtype of the weight."""
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty(len(rows), self.packed.num_columns, dtype=self.packed.dtype)
        bias = () if self.bias is None else (self.bias,)
        emit(self.packed.library, self.packed.linear, [out], [inputs_of(self.packed, rows), *bias])
        return out.view(*x.shape[:-1], -1)


def inputs_of(weight: PackedWeight | QuantizedWeight, rows: torch.Tensor) -> torch.Tensor:
    """What the kernel multiplies a weight with: rows (M, K) as they are, or in int8 groups, once for all that ask."""
    if isinstance(weight, PackedWeight):
        return rows
    order = () if weight.order is None else (weight.order,)
    shape = (len(rows), weight.input_bytes)
    return emit_shared(weight.library, weight.quantize, (shape, torch.uint8), [rows, *order])


class NativeEmbedding(nn.Module):
    """An embedding that reads a packed weight, that of the language-model head as a rule; times `scale`, if any."""

    def __init__(self, weight: PackedWeight | QuantizedWeight, scale: torch.Tensor | None = None) -> None:
        super().__init__()
        self.packed = weight
        self.scale = scale

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self.packed.data]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(...) int64 to (..., K)."""
        out = torch.empty(tokens.numel(), self.packed.k, dtype=self.packed.dtype)
        emit(self.packed.library, self.packed.rows, [out], [tokens.reshape(-1)])
        rows = out.view(*tokens.shape, -1)
        return rows if self.scale is None else rows * self.scale


class OneDNNLinear(nn.Module):
    """A linear over a weight laid out once for oneDNN; with `upcast`, float32 inside and rounded at the end.

    Upcasting serves bfloat16 and float16 on processors without such instructions: the products of two bfloat16
    values are exact in float32, and only the result is rounded. It takes 4 bytes a weight.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, upcast: bool) -> None:
        super().__init__()
        self.out_features = weight.shape[0]
        self._dtype = weight.dtype
        self._upcast = upcast
        inner = weight.float() if upcast else weight
        self._packed = torch.ops.mkldnn._reorder_linear_weight(inner.detach().contiguous(), _PACK_HINT)
        self._bias = bias.detach().to(inner.dtype) if bias is not None else None
        self.num_bytes = inner.numel() * inner.element_size()

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self._packed] if self._bias is None else [self._packed, self._bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) to (..., N), in the dtype of the weight it was made from."""
        inner = x.float() if self._upcast else x
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inner, self._packed, self._bias, "none", [], "")
        return out.to(self._dtype)
