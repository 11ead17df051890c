"""What cannot be decoded exactly is refused in one sentence that names the part."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers

import paceline
from exactness.models import VOCAB, from_config
from exactness.subjects import Subject

SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LAYERS = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 1}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "recurrent": (
        "Rwkv",
        {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2},
        "0 of 2 layers .*RwkvSelfAttention keeps a state of its own",
    ),
    "chunked": ("Llama", {**LAYERS, "attention_chunk_size": 16}, "chunked attention"),
    "private attention": (
        "XLNet",
        {"vocab_size": VOCAB, "d_model": 32, "n_layer": 2, "n_head": 2},
        "0 of 2 layers .*XLNetRelativeAttention is its own",
    ),
}


def random_model(kind: str, settings: dict[str, Any]) -> transformers.PreTrainedModel:
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**settings, **ends)
    return from_config(config)


@pytest.mark.parametrize("part", REFUSED)
def test_a_model_that_cannot_be_decoded_exactly_is_refused(part: str):
    kind, settings, words = REFUSED[part]
    with pytest.raises(paceline.ModelError, match=words) as refusal:
        paceline.load(random_model(kind, settings), cache_tokens=1024)
    assert "\n" not in str(refusal.value)


def test_a_model_without_a_language_model_head_is_refused():
    config = transformers.LlamaConfig(**LAYERS)
    for kind in (transformers.LlamaModel, transformers.LlamaForSequenceClassification):
        with pytest.raises(paceline.ModelError, match=f"{kind.__name__} has no language-model head"):
            paceline.load(kind(config).eval(), cache_tokens=1024)


def test_attention_that_looks_ahead_is_refused():
    config = transformers.BertConfig(**LAYERS, initializer_range=0.2)
    model = transformers.BertForMaskedLM(config).eval()
    with pytest.raises(paceline.ModelError, match="BertForMaskedLM is an encoder as it is configured, and no decoder"):
        paceline.load(model, cache_tokens=1024)


def test_a_mask_of_the_models_own_is_refused(monkeypatch: pytest.MonkeyPatch):
    llama = transformers.models.llama.modeling_llama
    monkeypatch.setattr(llama, "create_causal_mask", lambda **how: torch.zeros(1, 1, 7, 7))
    with pytest.raises(paceline.ModelError, match="a mask of its own"):
        Subject("llama")


def test_an_argument_of_attention_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch):
    attention = transformers.models.llama.modeling_llama.LlamaAttention
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda self, *args, **how: forward(self, *args, **how, block_indices=[3]))
    with pytest.raises(paceline.ModelError, match="LlamaAttention asks for attention by block_indices, which would be"):
        Subject("llama")


def test_positions_that_are_counted_by_the_cache_are_refused(monkeypatch: pytest.MonkeyPatch):
    """As Llama 4 does: from some position on, and by how many rows there are and were."""
    attention = transformers.models.llama.modeling_llama.LlamaAttention
    forward = attention.forward

    def scaled(self, hidden_states, *args, **how):
        cache = how.get("cache") or how.get("past_key_values")
        start = cache.get_seq_length(self.layer_idx) if cache is not None else 0
        scale = torch.log1p((torch.arange(hidden_states.shape[1]) + start) // 512)
        return forward(self, hidden_states * (1 + scale[:, None]), *args, **how)

    monkeypatch.setattr(attention, "forward", scaled)
    with pytest.raises(paceline.ModelError, match=r"from position 631 on .*counts positions by something else"):
        Subject("llama")


@pytest.mark.parametrize(("architecture", "kind"), [("mistral", "Mistral"), ("gemma2", "Gemma2")])
def test_a_window_that_never_reaches_the_attention_is_refused(architecture, kind, monkeypatch: pytest.MonkeyPatch):
    modeling = getattr(transformers.models, architecture)
    attention = getattr(getattr(modeling, f"modeling_{architecture}"), f"{kind}Attention")
    forward = attention.forward

    def without_window(self, *args, **kwargs):
        whole = self.config
        self.config, self.sliding_window = copy.copy(whole), None
        self.config.sliding_window = None
        try:
            return forward(self, *args, **kwargs)
        finally:
            self.config = whole

    monkeypatch.setattr(attention, "forward", without_window)
    with pytest.raises(paceline.ModelError, match="sliding windows"):
        Subject(architecture)


def test_layers_that_want_a_mask_are_refused(monkeypatch: pytest.MonkeyPatch):
    layer = transformers.models.llama.modeling_llama.LlamaDecoderLayer
    forward = layer.forward

    def with_a_mask(self, hidden_states, attention_mask=None, **how):
        return forward(self, hidden_states + 0 * attention_mask.sum(), attention_mask, **how)

    monkeypatch.setattr(layer, "forward", with_a_mask)
    with pytest.raises(paceline.ModelError, match="do not run with the registered attention"):
        Subject("llama")
