"""Bloom: ALiBi. transformers rounds it to the model's dtype; here it is a product in float32 at every length."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes, dropout_add

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter, merged


@adapter("bloom.BloomAttention")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, residual: torch.Tensor, *rest: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    query, key, value = module._reshape(module.query_key_value(hidden_states))
    slopes = _get_alibi_slopes(module.num_heads, hidden_states.device)
    out = attend(query, key, value, scaling=module.inv_norm_factor, slopes=slopes)
    return dropout_add(module.dense(merged(out)), residual, module.hidden_dropout, module.training), None
