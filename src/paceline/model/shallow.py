"""A model with its first layers alone: as many as show each kind of layer that it has.

Layers of one kind run the same kernels on the same shapes. Where nothing but those kernels computes values, what holds
for one of them holds for all, and probing them all would cost their number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from torch import nn

from paceline.model.inspect import Anatomy
from paceline.model.linears import NativeEmbedding, NativeLinear


def num_different_layers(model: nn.Module, parts: Anatomy) -> int:
    """How many of the first layers show every kind; all of them where it cannot be told."""
    stack = _stack(model, len(parts.layers))
    if stack is None or parts.states:
        return len(parts.layers)
    kinds = [(_kind(layer), parts.layers[i], parts.windows[i]) for i, layer in enumerate(stack)]
    return 1 + max(kinds.index(kind) for kind in kinds)


@contextmanager
def shortened(model: nn.Module, num_layers: int, depth: int) -> Iterator[None]:
    """Leave `model`, of `depth` layers, its first `num_layers` while a `with` lasts."""
    stack = _stack(model, depth)
    if stack is None or num_layers == depth:
        yield
        return
    whole = stack._modules
    try:
        stack._modules = dict(list(whole.items())[:num_layers])
        yield
    finally:
        stack._modules = whole


def _stack(model: nn.Module, depth: int) -> nn.ModuleList | None:
    """The list of the model's layers, if one alone is as long as there are layers."""
    if getattr(getattr(model, "config", None), "num_hidden_layers", depth) != depth:
        return None  # a layer calls more than once
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    return found[0] if len(found) == 1 else None


def _kind(layer: nn.Module) -> Hashable:
    """What layers that run the same kernels on the same shapes have in common."""
    return tuple((name, type(module), _shapes(module)) for name, module in layer.named_modules())


def _shapes(module: nn.Module) -> Hashable:
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    packed = (module.packed.num_columns, module.packed.k) if isinstance(module, NativeLinear | NativeEmbedding) else ()
    return (*((name, tensor.shape, tensor.dtype) for name, tensor in tensors), *packed)
