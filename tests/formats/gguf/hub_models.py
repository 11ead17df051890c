"""Tiny models of every architecture, and files of them as llama.cpp's own converter makes them (`conversion/*.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

# No power of two where none is needed: heads share keys, and are not as wide together as the hidden state.
COMMON: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 30,
    "intermediate_size": 46,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 96,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "rms_norm_eps": 1e-5,
}
PLAIN = {"rope_type": "default", "rope_theta": 5000.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 24,
    "beta_fast": 30.0,
    "attention_factor": 1.25,
}
GEMMA_ROPES = {
    "full_attention": {**LINEAR, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0, 2.0], "short_factor": [1.0, 1.5]}
MOE = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
    "norm_topk_prob": True,
}
PHI3 = {key: value for key, value in COMMON.items() if key != "head_dim"} | {"hidden_size": 60}
_GPT2 = {"n_positions": 96, "n_embd": 30, "n_layer": 3, "n_head": 5, "n_inner": 70, "vocab_size": 37}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**COMMON, rope_parameters=PLAIN),
    "llama-tied-biased": LlamaConfig(**{**COMMON, "tie_word_embeddings": True}, attention_bias=True, mlp_bias=True),
    "llama-yarn": LlamaConfig(**COMMON, rope_parameters=YARN),
    "mistral": MistralConfig(**COMMON, sliding_window=7),
    "qwen2": Qwen2Config(**{**COMMON, "num_attention_heads": 3, "num_key_value_heads": 1}),
    "qwen2-yarn": Qwen2Config(
        **{**COMMON, "num_key_value_heads": 6, "head_dim": 6, "hidden_size": 36}, rope_parameters=YARN
    ),
    "qwen3": Qwen3Config(**COMMON, rope_parameters={**PLAIN, "rope_theta": 1e6}),
    "qwen3moe": Qwen3MoeConfig(**{**COMMON, **MOE}, decoder_sparse_step=1, mlp_only_layers=[]),
    "gemma2": Gemma2Config(**{**COMMON, "tie_word_embeddings": True}, query_pre_attn_scalar=10, sliding_window=8),
    "gemma3": Gemma3TextConfig(
        **{**COMMON, "num_hidden_layers": 7, "tie_word_embeddings": True},
        query_pre_attn_scalar=10,
        sliding_window=8,
        rope_parameters=GEMMA_ROPES,
    ),
    "phi3": Phi3Config(**PHI3, sliding_window=9),
    "phi3-long": Phi3Config(
        **PHI3,
        original_max_position_embeddings=48,
        rope_parameters={**LONG, "partial_rotary_factor": 0.4},
    ),
    "gpt2": GPT2Config(**_GPT2, **_ENDS),
}


def changed(model: PreTrainedModel, gguf: Any, architecture: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors as llama.cpp's converter writes them: its table of names, its changes of values."""
    layers = model.config.num_hidden_layers
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], layers)
    config: Any = model.config
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("gate_up_proj") and "experts" in name:
            gate, up = weight.chunk(2, dim=1)
            base = name.removesuffix("gate_up_proj")
            yield names.get_name(f"{base}gate_proj.weight", (".weight",)), gate
            yield names.get_name(f"{base}up_proj.weight", (".weight",)), up
            continue
        full = name if name.endswith((".weight", ".bias")) else f"{name}.weight"
        target = names.get_name(full, (".weight", ".bias"))
        assert target is not None, name
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weight = weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            weight = weight + 1
        if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            weight = weight.t()
        yield target, weight


def write(model: PreTrainedModel, path: Path, gguf: Any) -> Path:
    """A file of F32 by the package's own writer."""
    config: Any = model.config
    architecture = {"mistral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3"}.get(
        config.model_type, config.model_type
    )
    writer = gguf.GGUFWriter(path, architecture)
    _write_config(writer, config, architecture, gguf)
    writer.add_tokenizer_model("none")
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, weight in changed(model, gguf, architecture):
        writer.add_tensor(name, weight.detach().contiguous().numpy())
    for word in ("long", "short"):
        if config.model_type == "phi3" and f"{word}_factor" in config.rope_parameters:
            factors = torch.tensor(config.rope_parameters[f"{word}_factor"])
            writer.add_tensor(f"rope_factors_{word}.weight", factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_config(writer: Any, config: Any, architecture: str, gguf: Any) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if architecture == "gpt2":
        writer.add_feed_forward_length(config.n_inner)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if architecture not in ("phi3", "qwen2"):
        writer.add_key_length(width)
        writer.add_value_length(width)
    _write_rope(writer, config, architecture, gguf, width)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)


def _write_rope(writer: Any, config: Any, architecture: str, gguf: Any, width: int) -> None:
    rope = config.rope_parameters
    if architecture == "gemma3":
        writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    if architecture == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType[rope["rope_type"].upper()])
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_attn_factor(rope["attention_factor"])
        writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
