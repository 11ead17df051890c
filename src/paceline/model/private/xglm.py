"""XGLM: attention as usual, queries scaled before it."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter, heads, merged


@adapter("xglm.XGLMAttention")
def _forward(module: Any, original: Any, hidden_states: torch.Tensor, *rest: Any, **more: Any) -> tuple[Any, None]:
    query = heads(module.q_proj(hidden_states) * module.scaling, module.head_dim)
    key, value = (heads(linear(hidden_states), module.head_dim) for linear in (module.k_proj, module.v_proj))
    return module.out_proj(merged(attend(query, key, value, scaling=1.0))), None
