"""Models to measure: random ones of a named shape, and stock ones as transformers loads them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from paceline.bundled import bundled_path
from paceline.errors import ConfigError, ModelError

_MAX_LENGTH = 4096


def _llama(
    hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, tied: bool
) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _llama(64, 2, 4, 2, 128, 256, True),
    "134m": _llama(768, 12, 12, 12, 2048, 32_000, False),
    "360m": _llama(960, 32, 15, 5, 2560, 49_152, True),  # as SmolLM-360M
    "1b": _llama(2048, 16, 32, 8, 8192, 128_256, True),  # as Llama-3.2-1B
    "8b": _llama(4096, 32, 32, 8, 14_336, 128_256, False),  # as Llama-3.1-8B
}


def random_model(
    shape: str, dtype: torch.dtype, device: torch.device, scale: float = 0.02
) -> PreTrainedModel:
    """A Llama of a named shape with normal weights of deviation `scale`, the same ones every time."""
    if shape not in SHAPES:
        raise ConfigError(f"shape is {shape!r}; allowed: {', '.join(SHAPES)}")
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=_MAX_LENGTH, initializer_range=scale)
    torch.manual_seed(0)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()  # type: ignore[no-any-return]


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
    return model.to(device).eval()  # type: ignore[no-any-return]


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers from `1,2,4`, ascending."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; allowed: numbers with commas between them") from error
    if counts[0] < 1:
        raise ConfigError(f"{option} is {text!r}; allowed: numbers of at least 1")
    return tuple(counts)
