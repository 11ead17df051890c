"""A tiny target that heads are made for."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from heads.writers import SIZES


@pytest.fixture(scope="session")
def target() -> LlamaForCausalLM:
    """Four layers of random weights, large enough that it has opinions."""
    torch.manual_seed(3)  # one whose texts seldom go round in circles
    config = LlamaConfig(**SIZES, num_hidden_layers=4, initializer_range=0.35, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.lm_head.weight, std=1.0)
    torch.nn.init.uniform_(model.model.norm.weight, 0.3, 1.7)
    return model
