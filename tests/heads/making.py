"""Tiny block heads of random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedModel, Qwen3Config

from paceline.heads.block import BlockHead
from paceline.heads.config import BlockConfig


def block_head(
    target: PreTrainedModel, seed: int = 0, layers: int = 1, family: str = "qwen3", **changes: Any
) -> BlockHead:
    """A head of random weights for a target, whose embedding and language-model head it shares."""
    config, kind = target.config.get_text_config(), {"qwen3": Qwen3Config, "llama": LlamaConfig}[family]
    own = kind(
        hidden_size=config.hidden_size,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=config.vocab_size,
        max_position_embeddings=512,
    )
    wanted = {"taps": (0, 1), "block_size": 7, "mask_token_id": 3, "transition": "rnn", "rank": 5, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = BlockHead(BlockConfig(own, target_hidden_size=config.hidden_size, **wanted))
        for weight in head.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    if wanted.get("draft_vocab_size"):
        head.d2t = torch.randperm(config.vocab_size)[: wanted["draft_vocab_size"]].sort().values
    return head.eval()
