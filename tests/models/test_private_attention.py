"""Families whose attention is code of their own: exact as those that ask the registered one."""

from __future__ import annotations

from typing import Any

import pytest

from exactness.decoding import RandomTrees, decode
from models.families import Loaded, check, kernels, tiny
from models.lightly import check_lightly
from paceline.native.library import library

needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels")
_HEADS = {"hidden_size": 60, "num_attention_heads": 5}
_FALCON = {"hidden_size": 60, "num_attention_heads": 5, "ffn_hidden_size": 76}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 5, "attention_types": [[["global", "local"], 1]], "window_size": 37},
    ),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 5}),
    "mpt": ("mpt", {"d_model": 60, "n_layers": 2, "n_heads": 5, "max_seq_len": 640, "attn_config": {"clip_qkv": 1.5}}),
    "falcon": ("falcon", {**_FALCON, "multi_query": True}),
    "falcon-heads": ("falcon", {**_FALCON, "multi_query": False, "bias": True, "parallel_attn": False}),
    "falcon-new": (
        "falcon",
        {"new_decoder_architecture": True, "hidden_size": 72, "num_attention_heads": 6, "num_kv_heads": 2},
    ),
    "falcon-alibi": ("falcon", {**_FALCON, "alibi": True, "multi_query": False}),
    "openai-gpt": ("openai-gpt", {"n_embd": 60, "n_layer": 2, "n_head": 5, "n_positions": 640}),
    "xglm": ("xglm", {"d_model": 60, "num_layers": 2, "attention_heads": 5, "ffn_dim": 76}),
    "gpt_neox_japanese": ("gpt_neox_japanese", {**_HEADS, "intermediate_multiple_size": 2}),
    "megatron-bert": ("megatron-bert", {"is_decoder": True}),
    "rembert": ("rembert", {"is_decoder": True, "input_embedding_size": 24, "output_embedding_size": 36}),
    "roformer": ("roformer", {"is_decoder": True, "hidden_size": 56, "embedding_size": 56}),
    "big_bird": ("big_bird", {"is_decoder": True}),
    "git": (
        "git",
        {
            "vision_config": {
                "num_attention_heads": 2,
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "intermediate_size": 32,
                "image_size": 32,
            }
        },
    ),
    "doge": ("doge", {"hidden_size": 56, "keep_window_size": 640}),
}


def loaded(name: str) -> Loaded:
    kind, settings = FAMILIES[name]
    model = tiny(kind, **settings)
    if name == "falcon-alibi":
        model.config._attn_implementation = "sdpa"  # transformers' eager one adds ALiBi twice
    return Loaded(model)


IN_FULL = ("gpt_neo", "bloom", "falcon-alibi", "doge")  # a window, ALiBi, what a key adds


@pytest.mark.parametrize("name", IN_FULL)
def test_it_is_exact(name: str):
    found = loaded(name)
    check(found)
    assert not any("forward" in vars(module) or "_attn" in vars(module) for module in found.model.modules())
    found.llm.close()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in IN_FULL])
def test_its_text_is_transformers_own(name: str):
    found = loaded(name)
    check_lightly(found)
    found.llm.close()


def test_alibi_far_into_a_context_is_rounded_as_transformers_rounds_it():
    found = loaded("falcon-alibi")
    check_lightly(found, length=530)
    found.llm.close()


@pytest.mark.parametrize("name", ["gpt_neo", "bloom", "falcon-alibi", "doge"])
def test_it_is_exact_without_native_kernels(name: str):
    with kernels("0"):
        found = loaded(name)
        check_lightly(found)
        found.llm.close()


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_weights_give_the_same_bits_in_trees(dtype: str):
    kind, settings = FAMILIES["falcon-new"]
    model = tiny(kind, **settings)
    found = Loaded(model.bfloat16()) if dtype == "bfloat16" else Loaded(model, dtype=dtype)
    jobs = [found.job(70, 1, 8), found.job(9, 2, 8, temperature=1.0)]
    trees = RandomTrees(found.plain, jobs, 1, style="mixed", fill=True)
    assert found.plain.differences(jobs, decode(found.target, jobs, trees, budget=9)) == []
    found.llm.close()


@needs_kernels
def test_a_padding_token_keeps_no_step_from_being_one_native_call():
    found = Loaded(tiny("rembert", **{**FAMILIES["rembert"][1], "pad_token_id": 0}))
    assert found.target.decoder.is_exact_by_construction
    found.llm.close()
