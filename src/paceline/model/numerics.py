"""Linears and activations whose bits do not depend on how many rows there are, for a model that is ours to change.

Library kernels pick their path by shape, so one row's bits may change with its neighbours. Nothing here is
trusted: probe.py measures what a model built from these pieces does. Knows nothing of attention or caches.
"""

from __future__ import annotations

import copy
import os
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paceline.model.experts import BlockExperts, NativeExperts, is_experts
from paceline.model.grouped import PackedLinears
from paceline.model.linears import NativeEmbedding, NativeLinear, OneDNNLinear
from paceline.model.private import pack_experts
from paceline.model.quantized import QuantizedEmbedding, QuantizedLinear
from paceline.native.library import Library, library
from paceline.native.ops import FLOATS, PackedWeight
from paceline.native.quantized import QuantizedWeight
from paceline.native.recording import is_recording

_VECTOR = 64  # a multiple of every vector width and of its unrolling, in elements of any dtype
_LINEARS = ("FalconLinear",)  # subclasses that compute what a linear does
_ACTIVATIONS = ("BloomGelu",)  # functions of values, outside transformers' own list
_SERIAL = 16_384  # most elements that every elementwise kernel leaves to one thread (gelu's is the least)


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
        return in_whole_vectors(self._activation, x)


def in_whole_vectors(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """An elementwise function of `x`, never given a vector's odd end; see `WholeVectors`."""
    if is_recording():
        return function(x)
    flat, size = x.reshape(-1), x.numel()
    if size % _VECTOR:
        flat = nn.functional.pad(flat, (0, -size % _VECTOR))
    pieces = [function(piece) for piece in torch.split(flat, _SERIAL)]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces))[:size].view(x.shape)


def has_odd_end(size: int) -> bool:
    """True if an elementwise kernel over `size` elements may meet a vector that is not full, in any thread."""
    return size % _VECTOR > 0 or size > _SERIAL


Replace = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]  # from a weight (N, K) and a bias


@dataclass(frozen=True)
class NumericPath:
    """One way to compute a model's linears: `begin` gives what replaces them in one model."""

    name: str
    begin: Callable[[], Replace] | None
    library: Library | None = None  # of the native kernels: experts are theirs as well


def paths(dtype: torch.dtype, device: torch.device) -> list[NumericPath]:
    """The numeric paths to try for a dtype on a device, the preferred first. The order decides, never a timing."""
    if device.type != "cpu":
        return [NumericPath("stock", None)]
    found = library()
    if found is None or dtype not in FLOATS:
        return _library_paths(dtype)
    native = NumericPath(f"native-{found.name}", lambda: _native(found), found)
    return [native, *_library_paths(dtype)] if found.is_preferred else [*_library_paths(dtype), native]


def _native(found: Library) -> Replace:
    packed: dict[tuple[int, tuple[int, ...]], PackedWeight] = {}  # tied weights are packed once

    def replace(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
        key = (weight.data_ptr(), weight.stride())
        if key not in packed:
            packed[key] = PackedWeight(found, weight.detach())
        return NativeLinear(packed[key], bias)

    return replace


def _library_paths(dtype: torch.dtype) -> list[NumericPath]:
    stock = NumericPath("stock", None)
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return [stock]
    packed = NumericPath("onednn-packed", lambda: lambda w, b: OneDNNLinear(w, b, upcast=False))
    if dtype == torch.float32:
        return [packed, stock]
    upcast = NumericPath("onednn-packed-fp32", lambda: lambda w, b: OneDNNLinear(w, b, upcast=True))
    is_native = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # Without such instructions torch's own product reads half the bytes of an upcast weight and wins at few rows.
    return [packed, upcast, stock] if is_native else [stock, upcast]


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model's modules and configuration that shares its weights, so that the original stays as it is."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def apply(model: PreTrainedModel, path: NumericPath) -> None:
    """Replace the linears and activations of `model`, in place, module by module so that memory never doubles."""
    replace = path.begin() if path.begin is not None else None
    embeddings = {_address(e): e for e in model.modules() if type(e) is nn.Embedding}
    heads: dict[nn.Module, PackedWeight | QuantizedWeight] = {}
    for parent, name, child in _children(model):
        new = _replacement(child, replace)
        if new is None:
            continue
        setattr(parent, name, new)
        if type(child) is nn.Linear and isinstance(new, NativeLinear) and _address(child) in embeddings:
            heads[embeddings[_address(child)]] = new.packed
    if path.library is not None:
        _pack_experts(model, path.library)
    for parent, name, child in _children(model):
        if child in heads:
            setattr(parent, name, NativeEmbedding(heads[child]))


def apply_to_head(head: nn.Module, target: PreTrainedModel, but: nn.Module | None = None) -> None:
    """Have a head compute as its target does: on its device, in its dtype, by the native kernels if it runs by them.

    What the two share is replaced already; `but` stays as it is.
    """
    is_native = any(isinstance(module, NativeLinear) for module in target.modules())
    dtype = next((p.dtype for p in target.parameters() if p.is_floating_point()), torch.float32)
    head.to(target.device, dtype).eval().requires_grad_(False)
    found = library()
    if not is_native or found is None:
        return
    replace = _native(found)
    kept = set() if but is None else set(but.modules())
    for parent, name, child in _children(head):
        new = None if parent in kept else _replacement(child, replace)
        if new is not None:
            setattr(parent, name, new)
    _pack_experts(head, found)


def _pack_experts(model: nn.Module, found: Library) -> None:
    for experts in [module for module in model.modules() if is_experts(module)]:
        experts.packed = NativeExperts(found, experts)
    pack_experts(model, found)


def _address(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.data_ptr()


def _children(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    return [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]


def _replacement(module: nn.Module, replace: Replace | None) -> nn.Module | None:
    if replace is not None and (type(module) is nn.Linear or type(module).__name__ in _LINEARS):
        return replace(module.weight, module.bias)  # type: ignore[arg-type]
    if replace is not None and isinstance(module, Conv1D):
        return replace(module.weight.t(), module.bias)
    if isinstance(module, QuantizedLinear):
        return NativeLinear(module.packed, module.bias)
    if isinstance(module, QuantizedEmbedding):
        return NativeEmbedding(module.packed, module.scale)
    home = type(module).__module__
    elementwise = home in ("transformers.activations", "torch.nn.modules.activation")
    elementwise |= type(module).__name__ in _ACTIVATIONS
    if elementwise and not list(module.parameters()) and next(module.parameters(), None) is None:
        return WholeVectors(module)
    return None


def instruction_set(device: torch.device) -> str:
    """What the kernels were chosen for: the CPU capability that torch uses, or the GPU's name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights that are alive: its parameters, and weights laid out anew."""
    parameters = {p.data_ptr(): p.numel() * p.element_size() for p in model.parameters()}
    native = {m.packed for m in model.modules() if isinstance(m, (NativeLinear, NativeEmbedding))}
    packed = [m for m in model.modules() if isinstance(m, (OneDNNLinear, PackedLinears))]
    return sum(parameters.values()) + sum(int(item.num_bytes) for item in (*native, *packed))


def num_weights(model: nn.Module) -> int:
    """Weights of a model, whatever they are kept as; shared ones once."""
    blocks = {m.packed for m in model.modules() if isinstance(m, (QuantizedLinear, QuantizedEmbedding))}
    stacks = [e for m in model.modules() for e in vars(m).values() if isinstance(e, BlockExperts)]
    experts = [weight for stack in stacks for weight in stack.weights]
    return sum(p.numel() for p in model.parameters()) + sum(w.num_columns * w.k for w in (*blocks, *experts))


def peak_bytes(device: torch.device) -> int:
    """Most memory in use so far: on a GPU what torch allocated, else the process's resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def free_memory(device: torch.device) -> int:
    """Bytes that could still be allocated on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
