"""Families whose experts are code of their own: the grouped experts know their routing."""

from __future__ import annotations

from typing import Any

import pytest

import paceline
from models.families import Loaded, check, tiny
from models.lightly import check_lightly
from paceline.native.library import library

needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels")
_SIZES = {"hidden_size": 64, "intermediate_size": 45}
_LATENT = {"q_lora_rank": 24, "kv_lora_rank": 18, "qk_nope_head_dim": 8, "qk_rope_head_dim": 6, "v_head_dim": 11}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama4_text": {
        **_SIZES,
        "intermediate_size_mlp": 76,
        "num_local_experts": 5,
        "head_dim": 12,
        "attention_chunk_size": 37,
        "layer_types": ["chunked_attention", "full_attention"],
        "no_rope_layers": [1, 0],
        "floor_scale": 16,
        "attn_scale": 0.3,
        "moe_layers": [1],
    },
    "jetmoe": {**_SIZES, "num_local_experts": 5, "kv_channels": 14, "num_key_value_heads": 3, "num_attention_heads": 6},
    "longcat_flash": {
        "hidden_size": 64,
        "num_layers": 2,
        "ffn_hidden_size": 76,
        "expert_ffn_hidden_size": 45,
        "n_routed_experts": 5,
        "zero_expert_num": 3,
        "moe_topk": 3,
        "head_dim": 6,
        "num_key_value_heads": 4,
        **_LATENT,
    },
    "dbrx": {
        "d_model": 64,
        "hidden_size": 64,
        "n_heads": 4,
        "n_layers": 2,
        "max_seq_len": 640,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 2.0, "rope_theta": 10_000.0},
        "ffn_config": {"ffn_hidden_size": 45, "moe_num_experts": 5, "moe_top_k": 2, "hidden_size": 64},
    },
}


@needs_kernels
def test_it_is_exact():
    loaded = Loaded(tiny("llama4_text", **FAMILIES["llama4_text"]))
    check(loaded)
    loaded.llm.close()


@needs_kernels
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llama4_text"])
def test_its_text_is_transformers_own(family: str):
    loaded = Loaded(tiny(family, **FAMILIES[family]))
    check_lightly(loaded)
    loaded.llm.close()


@needs_kernels
def test_a_router_is_not_quantised():
    loaded = Loaded(tiny("llama4_text", **FAMILIES["llama4_text"]), dtype="int8")
    assert {"Q8_0", "float32"} <= {kind.becomes for kind in loaded.llm.info.contents}
    loaded.llm.close()


def test_without_native_kernels_they_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paceline.model.inspect.library", lambda: None)
    with pytest.raises(paceline.ModelError, match=r"mixture-of-experts .*moe_num_experts=5"):
        paceline.load(tiny("dbrx", **FAMILIES["dbrx"]))
