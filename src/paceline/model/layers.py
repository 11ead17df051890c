"""Where a model's decoder layers are, and the norm behind them."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from paceline.errors import ModelError


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder layers in their order.

    Raises:
        ModelError: it has no such list.
    """
    depth = model.config.get_text_config().num_hidden_layers
    decoder = _decoder(model)
    found = [module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if not found:
        raise ModelError(f"{type(model).__name__} has no list of its {depth} layers, so no head can read of them")
    return found[0]


def _decoder(model: PreTrainedModel) -> nn.Module:
    decoder: nn.Module = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    return decoder


def final_norm(model: PreTrainedModel) -> nn.Module:
    """The norm behind the last layer: the last module of the decoder that is named as one."""
    named = [child for name, child in _decoder(model).named_children() if "norm" in name or name == "ln_f"]
    if not named:
        raise ModelError(f"{type(model).__name__} has no norm behind its layers that could be told by its name")
    return named[-1]
