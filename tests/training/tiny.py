"""A target and heads of a few hundred weights, so that a test trains one in a second."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config

from paceline.heads.block import BlockHead
from paceline.heads.config import BlockConfig

VOCABULARY, WIDTH = 23, 16


def target(seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=24,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


def config(**fields: Any) -> BlockConfig:
    layers = Qwen3Config(
        hidden_size=WIDTH,
        num_hidden_layers=fields.pop("num_layers", 1),
        num_attention_heads=fields.pop("num_heads", 2),
        num_key_value_heads=fields.pop("num_kv_heads", 1),
        head_dim=fields.pop("head_dim", 8),
        intermediate_size=20,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
    )
    usual = {"taps": (1, 3), "target_hidden_size": WIDTH, "block_size": 4, "mask_token_id": 0, "rank": 3}
    return BlockConfig(layers, **{**usual, **fields})


def head(seed: int = 1, **fields: Any) -> BlockHead:
    torch.manual_seed(seed)
    return BlockHead(config(**fields))
