"""Models to measure: random ones of a named shape, and stock ones as transformers loads them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paceline.bench.shapes import MAX_LENGTH, SHAPES
from paceline.bundled import bundled_path
from paceline.errors import ConfigError, ModelError


def random_model(shape: str, dtype: torch.dtype, device: torch.device, scale: float = 0.02) -> PreTrainedModel:
    """A Llama of a named shape with normal weights of deviation `scale`, the same ones every time."""
    if shape not in SHAPES:
        raise ConfigError(f"shape is {shape!r}; allowed: {', '.join(SHAPES)}")
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=MAX_LENGTH, initializer_range=scale)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def stock_model(source: str, dtype: torch.dtype | str, device: torch.device) -> PreTrainedModel:
    """A bundled model, a folder or a hub name, as transformers loads it with its default attention."""
    folder = bundled_path(source) or source
    transformers_logging.disable_progress_bar()
    model: Any
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot load the model {source!r}: {reason}") from error
    finally:
        transformers_logging.enable_progress_bar()
    return model.to(device).eval()
