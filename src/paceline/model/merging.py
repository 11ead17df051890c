"""An adapter's weights added to those of its base: computed in float32, and rounded once to what the model is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paceline.adapters import WEIGHTS, Adapter
from paceline.errors import ModelError, first_line

_PREFIX = "base_model.model."
# By the ending of a tensor's name, the part of a module's adapter that it is.
_PARTS = {
    **{f".lora_{part}.weight": part for part in "AB"},
    **{f".lora_embedding_{part}": f"embedding_{part}" for part in "AB"},
    ".lora_magnitude_vector": "magnitude",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_B.bias": "bias",
}
Parts = dict[str, torch.Tensor]


def merge(model: PreTrainedModel, adapter: Adapter, dtype: torch.dtype) -> None:
    """Add an adapter to the weights that it is for, which become `dtype`; others stay as they are.

    Raises:
        ModelError: the files cannot be read, or a tensor has no place in the model.
    """
    parts, whole = _sorted(_read(adapter))
    saved = {name.rpartition(".")[0] for name in whole}
    _untie(model, {*parts, *(path for path in saved if _is_named(path, adapter.settings.get("modules_to_save")))})
    for name, value in whole.items():
        _set(model, name, value.float(), dtype)
    for path, found in parts.items():
        module = _module(model, path)
        if not isinstance(module, nn.Linear | nn.Embedding | Conv1D):
            raise ModelError(f"the adapter is for {path}, a {type(module).__name__}; allowed: linears and embeddings")
        _add(module, path, found, adapter, dtype)


def _read(adapter: Adapter) -> Parts:
    file = adapter.folder / WEIGHTS
    if not file.is_file():
        is_pickle = (adapter.folder / "adapter_model.bin").is_file()
        what = (
            "its weights are a pickle (adapter_model.bin), which may run code" if is_pickle else f"it has no {WEIGHTS}"
        )
        raise ModelError(f"the adapter {str(adapter.folder)!r} cannot be read: {what}")
    try:
        found: Parts = load_file(file)
    except Exception as error:
        raise ModelError(f"the adapter {str(file)!r} cannot be read: {first_line(error)}") from error
    return found


def _sorted(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, Parts], Parts]:
    """By module the parts of its adapter; by parameter those that are stored whole."""
    parts: dict[str, Parts] = defaultdict(dict)
    whole: Parts = {}
    for stored, tensor in tensors.items():
        name = stored.removeprefix(_PREFIX)
        ending = next((ending for ending in _PARTS if name.endswith(ending)), None)
        if ending is not None:
            parts[name.removesuffix(ending)][_PARTS[ending]] = tensor
        elif "lora_" in name or name == stored:
            raise ModelError(f"the adapter has a tensor {stored}, which is no part of a LoRA that can be merged here")
        else:
            whole[name.replace(".base_layer.", ".")] = tensor
    return dict(parts), whole


def _add(module: nn.Module, path: str, parts: Parts, adapter: Adapter, dtype: torch.dtype) -> None:
    """Add one module's adapter."""
    is_embedding = isinstance(module, nn.Embedding)
    kind = "embedding_" if is_embedding else ""
    wanted = {f"{kind}A", f"{kind}B"} | ({"magnitude"} if adapter.settings.get("use_dora") else set())
    optional = {"bias"} if adapter.settings.get("lora_bias") else set()
    if not wanted <= parts.keys() <= wanted | optional:
        raise ModelError(f"the adapter of {path} has {', '.join(sorted(parts))}; allowed: {', '.join(sorted(wanted))}")
    down, up = (parts[f"{kind}{part}"].float() for part in "AB")
    rank = adapter.rank(path)
    if len(down) != rank or up.shape[1] != rank:
        raise ModelError(f"the adapter of {path} has rank {len(down)}, and its settings say {rank}")
    is_transposed = is_embedding or isinstance(module, Conv1D)
    old = module.weight.detach().float()  # type: ignore[operator]
    change = (up @ down) * adapter.scale(path)
    change = change.t() if is_transposed else change
    if change.shape != old.shape:
        raise ModelError(f"the adapter of {path} is for {list(change.shape)}; the base has {list(old.shape)}")
    new = old + change
    if "magnitude" in parts:
        new = _rescaled(new, parts["magnitude"].float(), is_transposed)
    module.weight = _parameter(new, dtype)
    if "bias" in parts:
        if getattr(module, "bias", None) is None:
            raise ModelError(f"the adapter of {path} has a bias, and the base has none there")
        module.bias = _parameter(module.bias.detach().float() + parts["bias"].float() * adapter.scale(path), dtype)  # type: ignore[operator]


def _rescaled(weight: torch.Tensor, magnitude: torch.Tensor, is_transposed: bool) -> torch.Tensor:
    """DoRA (arXiv 2402.09353): each output's weights have the length that was learnt for them."""
    axis = 0 if is_transposed else 1
    lengths = torch.linalg.norm(weight, dim=axis)
    factors: torch.Tensor = magnitude.flatten() / lengths
    return weight * factors.unsqueeze(axis)


def _set(model: PreTrainedModel, name: str, value: torch.Tensor, dtype: torch.dtype) -> None:
    """Put a parameter that is stored whole in the place of the base's."""
    path, _, kind = name.rpartition(".")
    module = _module(model, path)
    old = module._parameters.get(kind)
    if old is None:
        raise ModelError(f"the adapter has a weight {name}, which {type(model).__name__} has not")
    if old.shape != value.shape:
        raise ModelError(f"the adapter's {name} is {list(value.shape)}; the base has {list(old.shape)}")
    new = _parameter(value, dtype)
    for other in model.modules():  # those tied to it too
        for key, parameter in other._parameters.items():
            if parameter is old:
                setattr(other, key, new)


def _untie(model: PreTrainedModel, trained: set[str]) -> None:
    """Give head and embedding weights of their own where one of the two was trained by itself."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, nn.Linear) or head.weight is not embedding.weight:
        return
    if any(name in trained for name, module in model.named_modules() if module in (head, embedding)):
        head.weight = nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
        for config in (model.config, model.config.get_text_config(decoder=True)):
            config.tie_word_embeddings = False


def _is_named(path: str, ends: object) -> bool:
    """Whether a module is among those that were trained whole."""
    return any(path == end or path.endswith(f".{end}") for end in ends or ())  # type: ignore[attr-defined]


def _module(model: PreTrainedModel, path: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    module = modules.get(path)
    if module is None:
        raise ModelError(f"the adapter is for {path}, which {type(model).__name__} has not")
    return module


def _parameter(value: torch.Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
