"""Falcon: rotary positions or ALiBi, one key head or many, and a fused projection in three layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb, build_alibi_tensor

from paceline.model.interface import attend, positions
from paceline.model.private.adapters import adapter, attend_with_key_bias, merged


def _once(module: Any, original: Any, hidden_states: torch.Tensor, alibi: Any, *args: Any, **more: Any) -> Any:
    """Eager attention adds ALiBi to the scores although it is in the mask already; every other way adds it once."""
    return original(hidden_states, None if alibi is None else torch.zeros_like(alibi), *args, **more)


@adapter("falcon.FalconAttention", outside=_once)
def _forward(
    module: Any,
    original: Any,
    hidden_states: torch.Tensor,
    alibi: torch.Tensor | None,
    *rest: Any,
    position_embeddings: Any = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    query, key, value = (part.transpose(1, 2) for part in _split(module, module.query_key_value(hidden_states)))
    if alibi is None:
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        out = attend(query, key, value, scaling=module.inv_norm_factor)
    else:
        key, value = (part.expand(-1, module.num_heads, -1, -1) for part in (key, value))
        bias = _alibi(module, query.dtype)
        out = attend_with_key_bias(query, key, value, bias, scaling=module.inv_norm_factor)
    return module.dense(merged(out)), None


def _split(module: Any, fused: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (1, R, H, D), keys and values (1, R, H_kv, D): a key head stands for its group, not once for each."""
    if not module.new_decoder_architecture and not module.multi_query:
        return module._split_heads(fused)  # type: ignore[no-any-return]
    if not module.new_decoder_architecture:  # one key head; slices are views, where an index would copy
        one = fused.view(*fused.shape[:2], -1, module.head_dim)
        return one[..., :-2, :], one[..., -2:-1, :], one[..., -1:, :]
    grouped = fused.view(*fused.shape[:2], module.num_kv_heads, -1, module.head_dim)
    return grouped[..., :-2, :].flatten(2, 3), grouped[..., -2, :], grouped[..., -1, :]


def _alibi(module: Any, dtype: torch.dtype) -> torch.Tensor:
    """(1, H, R) what the rows' keys add: rounded to bfloat16 at every position, as transformers does it."""
    ones = torch.ones(1, module.max_position_embeddings, dtype=torch.int64)
    table: torch.Tensor = build_alibi_tensor(ones, module.num_heads, dtype)[:, 0].to(positions().device)
    return functional.embedding(positions(), table.t().contiguous()).transpose(1, 2)
