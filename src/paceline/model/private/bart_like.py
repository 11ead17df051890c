"""Decoders of BART's kind whose attention multiplies by itself: over their own keys, and over a source's."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.interface import attend, attend_source
from paceline.model.private.adapters import heads, merged


def attended(module: Any, hidden: torch.Tensor, source: torch.Tensor | None, cache: Any) -> torch.Tensor:
    """What a module with `q_proj`, `k_proj`, `v_proj` and `out_proj` gives rows (1, R, D), over a `source` or not."""

    def projected(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return heads(module.k_proj(states), module.head_dim), heads(module.v_proj(states), module.head_dim)

    query = heads(module.q_proj(hidden), module.head_dim)
    if source is None:
        return module.out_proj(merged(attend(query, *projected(hidden), scaling=module.scaling)))  # type: ignore[no-any-return]
    if not cache.is_updated.get(module.layer_idx):
        cache.cross_attention_cache.update(*projected(source), module.layer_idx)
    return module.out_proj(merged(attend_source(query, scaling=module.scaling)))  # type: ignore[no-any-return]
