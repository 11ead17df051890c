"""What the bench commands are asked for: named random shapes, and lists of numbers. Knows nothing of torch."""

from __future__ import annotations

from typing import Any

from paceline.errors import ConfigError

MAX_LENGTH = 65_536  # positions; what a cache of them takes is taken as they are read


def _llama(hidden: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }


def _hybrid(hidden: int, layers: int, heads: int, ffn: int, vocab: int) -> dict[str, Any]:
    """As Qwen3-Next without experts: three of four layers by the gated delta rule, of twice the width."""
    attention = {"num_attention_heads": heads, "num_key_value_heads": 2, "head_dim": hidden // heads}
    return {
        "model_type": "qwen3_next",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        **attention,
        "linear_num_key_heads": hidden // 128,
        "linear_num_value_heads": hidden // 64,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "num_experts": 0,
        "mlp_only_layers": list(range(layers)),
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _llama(64, 2, 4, 2, 128, 256, True),
    "134m": _llama(768, 12, 12, 12, 2048, 32_000, False),
    "134m-hybrid": _hybrid(768, 12, 12, 2048, 32_000),
    "360m": _llama(960, 32, 15, 5, 2560, 49_152, True),  # as SmolLM-360M
    "1b": _llama(2048, 16, 32, 8, 8192, 128_256, True),  # as Llama-3.2-1B
    "8b": _llama(4096, 32, 32, 8, 14_336, 128_256, False),  # as Llama-3.1-8B
}


def parse_counts(option: str, text: str) -> tuple[int, ...]:
    """Positive numbers from `1,2,4`, ascending."""
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; allowed: numbers with commas between them") from error
    if counts[0] < 1:
        raise ConfigError(f"{option} is {text!r}; allowed: numbers of at least 1")
    return tuple(counts)
