"""Linears and activations whose bits do not depend on how many rows there are, for a model that is ours to change.

Library kernels pick their path by shape, so one row's bits may change with its neighbours. Nothing here is
trusted: probe.py measures what a model built from these pieces does. Knows nothing of attention or caches.
"""

from __future__ import annotations

import copy
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_VECTOR = 64  # a multiple of every vector width and of its unrolling, in elements of any dtype
_SERIAL = 16_384  # most elements that every elementwise kernel leaves to one thread (gelu's is the least)
_PACK_HINT = 16  # rows that oneDNN lays the weight out for


class PackedLinear(nn.Module):
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., K) to (..., N), in the dtype of the weight it was made from."""
        inner = x.float() if self._upcast else x
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inner, self._packed, self._bias, "none", [], "")
        return out.to(self._dtype)


class WholeVectors(nn.Module):
    """An elementwise activation that is never given a vector's odd end.

    CPU kernels compute the last few elements of a thread's share by scalar code that rounds differently, so a
    row's bits depend on where it stands. Whole vectors, in pieces too small to be shared out, have no such end.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self._activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The activation of `x`, of any shape."""
        flat, size = x.reshape(-1), x.numel()
        if size % _VECTOR:
            flat = nn.functional.pad(flat, (0, -size % _VECTOR))
        pieces = [self._activation(piece) for piece in torch.split(flat, _SERIAL)]
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:size].view(x.shape)


def has_odd_end(size: int) -> bool:
    """True if an elementwise kernel over `size` elements may meet a vector that is not full, in any thread."""
    return size % _VECTOR > 0 or size > _SERIAL


@dataclass(frozen=True)
class NumericPath:
    """One way to compute a model's linears; `replace` gives the new module for a weight (N, K)."""

    name: str
    replace: Callable[[torch.Tensor, torch.Tensor | None], nn.Module] | None


def paths(dtype: torch.dtype, device: torch.device) -> list[NumericPath]:
    """The numeric paths to try for a dtype on a device, the preferred first. The order decides, never a timing."""
    stock = NumericPath("stock", None)
    if device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return [stock]
    packed = NumericPath("onednn-packed", lambda w, b: PackedLinear(w, b, upcast=False))
    if dtype == torch.float32:
        return [packed, stock]
    upcast = NumericPath("onednn-packed-fp32", lambda w, b: PackedLinear(w, b, upcast=True))
    is_native = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # Without such instructions torch's own product reads half the bytes of an upcast weight and wins at few rows.
    return [packed, upcast, stock] if is_native else [stock, upcast]


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model's modules and configuration that shares its weights, so that the original stays as it is."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def apply(model: PreTrainedModel, path: NumericPath) -> None:
    """Replace the linears and activations of `model`, in place, module by module so that memory never doubles."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = _replacement(child, path)
            if new is not None:
                setattr(parent, name, new)


def _replacement(module: nn.Module, path: NumericPath) -> nn.Module | None:
    if path.replace is not None and type(module) is nn.Linear:
        return path.replace(module.weight, module.bias)
    if path.replace is not None and isinstance(module, Conv1D):
        return path.replace(module.weight.t(), module.bias)
    home = type(module).__module__
    elementwise = home in ("transformers.activations", "torch.nn.modules.activation")
    if elementwise and not list(module.parameters()) and next(module.parameters(), None) is None:
        return WholeVectors(module)
    return None


def instruction_set(device: torch.device) -> str:
    """What the kernels were chosen for: the CPU capability that torch uses, or the GPU's name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's weights that are alive: its parameters, and weights laid out anew."""
    parameters: dict[int, int] = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    packed = sum(m.num_bytes for m in model.modules() if isinstance(m, PackedLinear))
    return sum(parameters.values()) + packed


def peak_bytes(device: torch.device) -> int:
    """Most memory in use so far: on a GPU what torch allocated, else the process's resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
