"""MPT: ALiBi, and activations that are clipped before attention."""

from __future__ import annotations

from typing import Any

import torch
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter, heads, merged


@adapter("mpt.MptModel")
def _model(module: Any, original: Any, *args: Any, **kwargs: Any) -> Any:
    """The model wants a mask of its own, which nobody reads here."""
    return original(*args, **{**kwargs, "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)})


@adapter("mpt.MptAttention")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, position_bias: torch.Tensor | None, *rest: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    mixed = module.Wqkv(hidden_states)
    if module.clip_qkv:
        mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = (heads(part, module.head_dim) for part in mixed.chunk(3, dim=2))
    # The bias of the position before the last is minus the slope.
    slopes = -build_mpt_alibi_tensor(module.n_heads, 2)[:, 0, 0].to(query.device)
    out = attend(query, key, value, scaling=module.softmax_scale, slopes=slopes if position_bias is not None else None)
    return module.out_proj(merged(out)), None
