"""The configuration of any class of transformers, made tiny."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCAB, FIRST_SPECIAL = 300, 280  # ids from here on stand for pictures, sounds, ends and padding
WINDOW = 16

_NAMES = (
    (
        64,
        "hidden_size d_model n_embd dim embed_dim embedding_size model_dim word_embed_proj_dim projection_dim "
        "out_hidden_size hidden_dim text_hidden_size projector_hidden_size output_dim mm_hidden_size d_embed emb_dim "
        "query_dim output_hidden_size attn_hidden_size per_layer_input_dim",
    ),
    (
        128,
        "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner ffn_hidden_size mlp_dim "
        "intermediate_size_mlp shared_intermediate_size ffn_intermediate_size block_ff_dim",
    ),
    (
        4,
        "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_decoder_layers "
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads "
        "linear_num_value_heads mamba_n_heads mamba_num_heads ssm_num_heads",
    ),
    (
        2,
        "num_key_value_heads num_kv_heads n_kv_heads num_experts_per_tok moe_topk moe_k num_experts_per_token top_k "
        "depth linear_num_key_heads",
    ),
    (
        16,
        "head_dim global_head_dim d_kv qk_nope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim "
        "mamba_d_state ssm_state_size state_size attention_head_size kv_channels",
    ),
    (8, "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim rope_head_dim rotary_dim"),
    (
        64,
        "moe_intermediate_size kv_lora_rank q_lora_rank expert_ffn_hidden_size moe_ffn_hidden_size "
        "shared_expert_intermediate_size moe_shared_expert_intermediate_size expert_dim",
    ),
    (
        640,
        "max_position_embeddings n_positions max_target_positions max_source_positions max_seq_len "
        "max_sequence_length n_ctx model_max_length context_length seq_length",
    ),
    (1, "n_group num_expert_group topk_group n_groups mamba_n_groups num_mtp_layers num_nextn_predict_layers"),
    (VOCAB, "vocab_size vocab_size_per_layer_input text_vocab_size decoder_vocab_size"),
    (WINDOW, "sliding_window sliding_window_size local_attention_window attention_window local_attention index_topk"),
)
_SIZES = {name: value for value, names in _NAMES for name in names.split()}
# Towers of pictures and sounds: no text passes through them.
_TOWER = {
    **_SIZES,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_key_value_heads": 4,
}
_BY_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type", "attn_layer_indices")


_GEMMA3N = {"intermediate_size": 96, "num_kv_shared_layers": 1, "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0]}
_PICTURES = {"<image>": 281, "IMGIMG": 282, "<|visual token 000000|>": 283, "<|extra_200|>": 284}
_PLAIN = {"rope_type": "default", "rope_theta": 1e4}
_THREE = {"text_config": {"rope_parameters": {**_PLAIN, "mrope_section": [2, 3, 3]}}}
_COMPASS = {"rope_parameters": {"full_attention": {**_PLAIN, "mrope_section": [2, 3, 3]}}}
_MIXED = ["linear_attention", "full_attention", "linear_attention", "full_attention"]
_INDEXED = ["linear_attention", "indexed_attention", "linear_attention", "indexed_attention"]
_ATTENDING = {"layer_types": ["linear_attention", "hybrid", "linear_attention", "hybrid"]}
# What a type needs besides: lists by layer, sizes that have to fit together, features that only checkpoints turn on.
EXTRA: dict[str, dict[str, Any]] = {
    "albert": {"is_decoder": True},
    **{
        name: {"is_decoder": True}
        for name in (
            *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert"),
            *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl"),
            *("bigbird_pegasus", "prophetnet"),
        )
    },
    "cpmant": {"position_bias_num_buckets": 32, "position_bias_max_distance": 64},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 4},
    },
    "bamba": {"attn_layer_indices": [1, 3]},
    "bailing_hybrid": {"layer_types": _MIXED},
    "kimi_linear": {"layer_types": _MIXED},
    "granitemoehybrid": {"layer_types": _MIXED},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
        "mamba_ngroups": 2,
        "num_mem_blocks": 1,
        "num_key_value_heads": 4,
        "adapter_rank": 8,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "inkling2": {"text_config": {"unpadded_vocab_size": VOCAB}},
    "inkling2_loop": {"text_config": {"unpadded_vocab_size": VOCAB}},
    "step3p7": {"text_config": {"sliding_window": WINDOW}},
    "inkling_text": {"unpadded_vocab_size": VOCAB},
    "inkling2_text": {"unpadded_vocab_size": VOCAB},
    "inkling2_loop_text": {"unpadded_vocab_size": VOCAB},
    "cohere_compass": {"text_config": _COMPASS},
    "cohere_compass_text": _COMPASS,
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1},
    "dory": {"num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "qwen4_exp": {"text_config": {"layer_types": _INDEXED}},
    "qwen4_exp_text": {"layer_types": _INDEXED},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "nemotron_h": {"layer_types": ["linear_attention", "full_attention", "moe", "mlp"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "chameleon": {"vocabulary_map": _PICTURES},
    "dots3_note": {"text_config": {"num_key_value_heads": 4}, "vision_config": {"per_layer_config": {}}},
    "dots3_note_text": {"num_key_value_heads": 4},
    "emu3": {"vocabulary_map": _PICTURES},
    "cosmos3_edge": {"text_config": {"head_dim": 16}},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "gemma3n": {"text_config": _GEMMA3N},
    "gemma3n_text": _GEMMA3N,
    "glm5_next": {"text_config": {"num_key_value_heads": 4}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]], "window_size": WINDOW},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "glm46v", "glm4v", "glm_ocr", "glmga", "paddleocr_vl"), _THREE),
    "glm4v_moe": {
        "text_config": {"rope_parameters": {**_PLAIN, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}}
    },
    "zamba": _ATTENDING,
}


def shrunk(model_type: str, extra: dict[str, Any] | None = None) -> PreTrainedConfig:
    """The tiny configuration of a type, with settings of its own."""
    return _shrunk(CONFIG_MAPPING[model_type](), {**EXTRA.get(model_type, {}), **(extra or {})}, is_tower=False)


def _shrunk(config: PreTrainedConfig, extra: dict[str, Any], is_tower: bool) -> PreTrainedConfig:
    sizes = _TOWER if is_tower else _SIZES
    settings: dict[str, Any] = {}
    inner = {name: value for name, value in vars(config).items() if isinstance(value, PreTrainedConfig)}
    for name, value in inner.items():
        is_text = name in (
            "text_config",
            "llm_config",
            "language_config",
            "thinker_config",
            "decoder",
            "decoder_config",
        )
        more = extra.pop(name, {})
        settings[name] = _shrunk(value, dict(more), is_tower or not (is_text or "text" in name)).to_dict()
    for name, value in config.to_dict().items():
        if name in inner or name in _BY_LAYER:
            continue
        size = _size_of(name, value, sizes)
        if size is not None:
            settings[name] = size
    if config.to_dict().get("kv_lora_rank"):  # latent attention: all heads have keys of their own
        settings["num_key_value_heads"] = sizes["num_attention_heads"]
        if getattr(config, "head_dim", 0) == getattr(config, "qk_rope_head_dim", -1):
            settings["head_dim"] = sizes["qk_rope_head_dim"]
    settings |= _tokens(config)
    settings |= extra
    return type(config)(**settings)


def _size_of(name: str, value: Any, sizes: dict[str, int]) -> Any:
    if name == "rope_parameters" or name == "rope_scaling":
        return _rope(value)
    if value is None and name in ("head_dim", "num_key_value_heads", "num_experts_per_tok"):
        return sizes[name]
    if name not in sizes or isinstance(value, bool) or value is None:
        return None
    if isinstance(value, list):
        return [sizes[name]] * len(value) if value and isinstance(value[0], int) else None
    if not isinstance(value, int):
        return None
    return (
        min(sizes[name], value) if name not in ("hidden_size", "vocab_size", "max_position_embeddings") else sizes[name]
    )


def _rope(value: Any) -> Any:
    if not isinstance(value, dict):
        return None
    if any(isinstance(inner, dict) for inner in value.values()):
        return (
            {name: _rope(inner) or inner for name, inner in value.items()} if any(map(_rope, value.values())) else None
        )
    changed = dict(value)
    if "mrope_section" in changed:
        changed["mrope_section"] = [2, 3, 3]
    if "original_max_position_embeddings" in changed:
        changed["original_max_position_embeddings"] = 160
    return changed if changed != value else None


def _tokens(config: PreTrainedConfig) -> dict[str, Any]:
    """Ids within the vocabulary: those of pictures and ends each another, from `FIRST_SPECIAL` on."""
    found: dict[str, Any] = {}
    ends = ("_token_id", "_token_index", "_token", "start_id", "end_id")
    names = [name for name in config.to_dict() if name.endswith(ends) and not name.endswith("per_token")]
    for place, name in enumerate(sorted(names)):
        value = getattr(config, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            found[name] = FIRST_SPECIAL + place
        elif isinstance(value, list):
            found[name] = None
    return found
