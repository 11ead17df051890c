"""Linears over weights laid out anew: for the native kernels, and for oneDNN."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from paceline.native.ops import PackedWeight
from paceline.native.quantized import QuantizedWeight
from paceline.native.recording import emit, emit_shared

_PACK_HINT = 16  # rows that oneDNN lays the weight out for


class PackedValues(torch.Tensor):
    """A weight as its model's code knows it: of a shape and a dtype, and unpacked when somebody computes with it."""

    _unpack: Callable[[], torch.Tensor]
    _held: weakref.ref[torch.Tensor] | None

    def __new__(cls, unpack: Callable[[], torch.Tensor], shape: tuple[int, int], dtype: torch.dtype) -> PackedValues:
        """A tensor without memory; `unpack` gives its values."""
        made: PackedValues = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        made._unpack, made._held = unpack, None
        return made

    def values(self) -> torch.Tensor:
        """The plain tensor; the same one for as long as anybody has it."""
        found = self._held() if self._held is not None else None
        if found is None:
            found = self._unpack()
            self._held = weakref.ref(found)
        return found

    def __deepcopy__(self, memo: Any) -> PackedValues:
        """Itself: nobody writes into a packed weight."""
        return self

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Any operation, on the plain tensor."""

        def plain(leaf: Any) -> Any:
            return leaf.values() if isinstance(leaf, PackedValues) else leaf

        return func(*tree_map(plain, args), **tree_map(plain, kwargs or {}))


def values_of(weight: PackedWeight | QuantizedWeight, scale: torch.Tensor | None = None) -> PackedValues:
    """A packed weight (N, K) as a tensor, times `scale`, if any."""

    def unpack() -> torch.Tensor:
        return weight.values() if scale is None else weight.values() * scale

    return PackedValues(unpack, (weight.num_columns, weight.k), weight.dtype)


class NativeLinear(nn.Module):
    """A linear by the native kernels: a row's bits are the same at every row count, place and thread count."""

    def __init__(self, weight: PackedWeight | QuantizedWeight, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.packed = weight
        self.bias = bias.detach() if bias is not None else None
        self.in_features, self.out_features = weight.k, weight.num_columns
        self.weight = values_of(weight)

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self.packed.data] if self.bias is None else [self.packed.data, self.bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) to (..., N), in the dtype of the weight."""
        rows = x.reshape(-1, x.shape[-1])
        rows = rows if rows.stride(1) == 1 else rows.contiguous()
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
        self.weight = values_of(weight, scale)

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self.packed.data]

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(...) int64 to (..., K)."""
        out = torch.empty(tokens.numel(), self.packed.k, dtype=self.packed.dtype)
        emit(self.packed.library, self.packed.rows, [out], [tokens.reshape(-1)])
        rows = out.view(*tokens.shape, -1)
        return rows if self.scale is None else rows * self.scale


def num_embeddings(embedding: nn.Module) -> int:
    """Tokens that an embedding knows."""
    known = embedding.packed.num_columns if isinstance(embedding, NativeEmbedding) else embedding.num_embeddings
    return int(known)  # type: ignore[arg-type]


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
        self.bias = bias.detach() if bias is not None else None
        self.weight = PackedValues(self._values, (weight.shape[0], weight.shape[1]), weight.dtype)
        self.num_bytes = inner.numel() * inner.element_size()

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with, as it lies in memory."""
        return [self._packed] if self._bias is None else [self._packed, self._bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) to (..., N), in the dtype of the weight it was made from."""
        inner = x.float() if self._upcast else x
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inner, self._packed, self._bias, "none", [], "")
        return out.to(self._dtype)

    def _values(self) -> torch.Tensor:
        values: torch.Tensor = self._packed.to_dense().to(self._dtype)
        return values
