"""Tiny random models of every supported architecture, with weights large enough that every bit matters."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCAB = 211  # odd, and no multiple of any vector width

_DENSE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 640,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
_SLIDING = {"sliding_window": 37, "layer_types": ["sliding_attention", "full_attention"]}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 60,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 640,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-odd": (
        "Llama",
        {"hidden_size": 100, "num_attention_heads": 5, "num_key_value_heads": 5, "intermediate_size": 173},
    ),
    "llama-multi-query": ("Llama", {"num_key_value_heads": 1, "intermediate_size": 864}),
    "llama-wide-heads": ("Llama", {"head_dim": 36, "hidden_size": 96, "num_attention_heads": 6}),
    "qwen2": ("Qwen2", {"num_attention_heads": 8, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 24}),
    "mistral": ("Mistral", {"sliding_window": 37}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 24, **_SLIDING}),
    "gemma3": ("Gemma3Text", {"head_dim": 16, "query_pre_attn_scalar": 24, **_SLIDING}),
    "phi3": ("Phi3", {}),
    "gpt2": ("GPT2", _GPT2),
    "gpt-neox": ("GPTNeoX", {"hidden_size": 80}),
    "olmo2": ("Olmo2", {}),
}

# Only the native kernels have a path for these.
EXPERTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 43}),
    "qwen3-moe": (
        "Qwen3Moe",
        {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 29, "head_dim": 24},
    ),
}

_GATED_DELTA = {
    "head_dim": 24,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 13,
    "linear_value_head_dim": 19,
}
_SMALL_MAMBA = {"hidden_size": 63, "num_attention_heads": 3, "num_key_value_heads": 1, "num_hidden_layers": 3}

# Layers with a state: short convolutions, the gated delta rule, Mamba in both of its kinds; alone and beside attention.
RECURRENT: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3-next": ("Qwen3Next", {**_GATED_DELTA, "mlp_only_layers": [0, 1, 2], "num_experts": 0}),
    "qwen3.5": ("Qwen3_5Text", {**_GATED_DELTA, "linear_num_key_heads": 4}),
    "lfm2": (
        "Lfm2",
        {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    ),
    "bamba": (
        "Bamba",
        {
            **_SMALL_MAMBA,
            "attn_layer_indices": [1],
            "mamba_n_heads": 6,
            "mamba_d_head": 21,
            "mamba_n_groups": 2,
            "mamba_d_state": 18,
        },
    ),
    "mamba2": (
        "Mamba2",
        {**_SMALL_MAMBA, "num_heads": 6, "head_dim": 21, "n_groups": 2, "state_size": 18, "chunk_size": 16},
    ),
    "mamba": ("Mamba", {"hidden_size": 50, "num_hidden_layers": 2, "state_size": 11}),
    "recurrent-gemma": (
        "RecurrentGemma",
        {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 37, "head_dim": 16},
    ),
    "minimax": ("MiniMax", {"num_hidden_layers": 3, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "jamba": (
        "Jamba",
        {"num_hidden_layers": 3, "attn_layer_offset": 1, "attn_layer_period": 3, "num_experts": 1, "mamba_d_state": 11},
    ),
}


def build(architecture: str, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model; `changes` override its configuration."""
    kind, own = {**ARCHITECTURES, **EXPERTS, **RECURRENT}[architecture]
    settings = own if kind == "GPT2" else {**_DENSE, **own}
    config = getattr(transformers, f"{kind}Config")(**{**settings, **changes})
    return from_config(config, dtype, seed)


def from_config(config: Any, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """A random causal language model of a configuration."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config._experts_implementation = "eager"  # the default asks for round shapes
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias") or "norm" in name or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.to(dtype).eval()
