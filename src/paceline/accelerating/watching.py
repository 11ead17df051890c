"""Whether a model is still the one that was loaded: its tensors, their places, versions and some of their values."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAMPLES = 4  # values of each tensor, for writes through `.data`, which count no version


def state_of(model: PreTrainedModel) -> Hashable:
    """What tells a model from itself after a change of weights, in place or not, dtype, device, modules or hooks."""
    tensors = [*model.parameters(), *model.buffers()]
    modules = [(id(module), _hooks(module)) for module in model.modules()]
    return (tuple(map(_place, tensors)), _values(tensors), tuple(modules))


def _hooks(module: torch.nn.Module) -> Hashable:
    """The hooks of a module but those that transformers leaves there once hidden states were asked for."""
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return tuple(id(hook) for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("transformers."))


def _place(tensor: torch.Tensor) -> Hashable:
    return (id(tensor), tensor.data_ptr(), version_of(tensor), tensor.dtype, tensor.device, tensor.shape)


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written to in place; one made in inference mode does not count."""
    return 0 if tensor.is_inference() else tensor._version


@torch.no_grad()
def _values(tensors: list[torch.Tensor]) -> Hashable:
    return tuple(float(sample) for tensor in tensors for sample in _sampled(tensor))


def _sampled(tensor: torch.Tensor) -> list[float]:
    flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach()[:1].reshape(-1)
    step = max(1, flat.numel() // _SAMPLES)
    return flat[::step][:_SAMPLES].tolist()
