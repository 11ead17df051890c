"""Models to measure: random ones of a named shape."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from paceline.bench.shapes import MAX_LENGTH, SHAPES
from paceline.errors import ConfigError


def random_model(shape: str, dtype: torch.dtype, device: torch.device, scale: float = 0.02) -> PreTrainedModel:
    """A model of a named shape, a Llama as a rule, with normal weights of deviation `scale`, the same every time."""
    if shape not in SHAPES:
        raise ConfigError(f"shape is {shape!r}; allowed: {', '.join(SHAPES)}")
    sizes = {"model_type": "llama", **SHAPES[shape]}
    config = AutoConfig.for_model(**sizes, max_position_embeddings=MAX_LENGTH, initializer_range=scale)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()
