"""`benchmarks/hybrid.py`: the hybrid says what the model that it is made of says."""

from __future__ import annotations

from typing import Any

import hybrid
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.mark.parametrize(("large", "is_same"), [(hybrid.LARGE, True), ((9.0, 9.0), False)])
def test_it_has_the_function_of_the_model(large: Any, is_same: bool, monkeypatch: pytest.MonkeyPatch):
    """As long as queries and keys are short beside the large numbers."""
    monkeypatch.setattr(hybrid, "NEURONS", 80)
    monkeypatch.setattr(hybrid, "LARGE", large)
    torch.manual_seed(3)
    shape = {"hidden_size": 128, "intermediate_size": 72, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=61, num_hidden_layers=2, initializer_range=0.2, tie_word_embeddings=True, **shape)
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 61, (1, 19))
    with torch.inference_mode():
        wanted, found = (one(input_ids=ids, use_cache=False).logits for one in (model, hybrid.hybrid_of(model)))
    assert (float((wanted - found).abs().max() / wanted.abs().max()) < 1e-2) == is_same
    assert len(found[0]) == 19
