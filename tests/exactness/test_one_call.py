"""Families whose whole step is one native call: exact by construction, and what the model itself computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from exactness.models import _DENSE, VOCAB, from_config
from paceline.model import inspect
from paceline.model.forward import RecordedForward
from paceline.model.numerics import apply
from paceline.model.pool import PagePool
from paceline.model.proving import candidates
from paceline.native.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")
_SMALL = {"n_embd": 60, "n_layer": 2, "n_head": 3, "n_positions": 640}
_LATENT = {
    "q_lora_rank": 24,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 9,
    "qk_rope_head_dim": 6,
    "v_head_dim": 11,
    "num_key_value_heads": 4,
}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 37, "head_dim": 18}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma4_text": {
        "global_head_dim": 12,
        "hidden_size_per_layer_input": 9,
        "vocab_size_per_layer_input": VOCAB,
        "num_kv_shared_layers": 0,
        **_WINDOWS,
    },
    "gemma3n_text": {
        **_WINDOWS,
        "laurel_rank": 8,
        "hidden_size_per_layer_input": 9,
        "vocab_size_per_layer_input": VOCAB,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.5, 0.0],
        "intermediate_size": [91, 91],
    },
    "glm4": {"head_dim": 18},
    "cohere2": _WINDOWS,
    "codegen": {**_SMALL, "rotary_dim": 6, "n_head": 4},
    "opt": {"ffn_dim": 91, "word_embed_proj_dim": 64},
    "bert": {"is_decoder": True},
    "minicpm3": {"num_key_value_heads": 4, **_LATENT},
    "apertus": {},
    "ministral3": {"head_dim": 18},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_one_native_call(family: str):
    config = transformers.AutoConfig.for_model(family, **{**_DENSE, **FAMILIES[family]})
    model, tokens = from_config(config), torch.arange(100) * 7 % VOCAB
    with torch.inference_mode():
        expected = model(input_ids=tokens[None], use_cache=False).logits[0, 64:]
    parts = inspect.anatomy(model)
    apply(model, candidates(model)[0])
    pool = PagePool(parts.layers, 8, torch.float32, model.device)
    forward = RecordedForward(model, pool, parts.max_length - 1, library())  # type: ignore[arg-type]
    assert forward.is_exact_by_construction
    assert forward._family is not None, "worked out from two recordings"
    sequence = pool.reserve(200)
    assert sequence is not None
    with torch.inference_mode():
        forward.prefill(sequence, tokens[:64].tolist())
        sequence.length = 64
        found = forward.prefill_logits(sequence, tokens[64:].tolist())
    assert (found - expected).norm() < 1e-4 * expected.norm()
