"""Decoders of BERT's kind whose self-attention is their own: attention as usual."""

from __future__ import annotations

import math
from typing import Any

import torch

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter, heads, merged


def self_attention(name: str) -> None:
    """Register a class with `query`, `key` and `value`, whose output another module projects."""

    @adapter(name)
    def _forward(module: Any, original: Any, hidden_states: torch.Tensor, *rest: Any, **more: Any) -> tuple[Any, None]:
        query, key, value = (
            heads(linear(hidden_states), module.attention_head_size)
            for linear in (module.query, module.key, module.value)
        )
        return merged(attend(query, key, value, scaling=1.0 / math.sqrt(module.attention_head_size))), None
