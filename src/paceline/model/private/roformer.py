"""RoFormer as a decoder: queries and keys rotated by sinusoids, and values too if the configuration says so."""

from __future__ import annotations

import math
from typing import Any

import torch

from paceline.model.interface import attend, positions
from paceline.model.private.adapters import adapter, heads, merged


@adapter("roformer.RoFormerSinusoidalPositionalEmbedding")
def _sinusoids(module: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    """(R, D) of the rows' positions, which the model would count from its cache."""
    return original(*args, **{**kwargs, "position_ids": positions()[0]})


@adapter("roformer.RoFormerSelfAttention")
def _forward(
    module: Any,
    original: Any,
    hidden_states: torch.Tensor,
    attention_mask: Any = None,
    sinusoidal_pos: torch.Tensor | None = None,
    *rest: Any,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    query, key, value = (
        heads(linear(hidden_states), module.attention_head_size) for linear in (module.query, module.key, module.value)
    )
    if module.rotary_value:
        query, key, value = module.apply_rotary_position_embeddings(sinusoidal_pos, query, key, value)
    else:
        query, key = module.apply_rotary_position_embeddings(sinusoidal_pos, query, key)
    return merged(attend(query, key, value, scaling=1.0 / math.sqrt(module.attention_head_size))), None
