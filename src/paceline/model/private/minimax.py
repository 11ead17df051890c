"""MiniMax's lightning attention: a linear recurrence whose decay is one number a head."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.private.adapters import adapter
from paceline.model.recurrence import scan_rows
from paceline.model.scanning import Scan


@adapter("minimax.MiniMaxLightningAttention")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    mixed = module.act_fn(module.qkv_proj(hidden_states))[0].unflatten(-1, (module.num_attention_heads, -1))
    query, key, value = (part.float() for part in mixed.split(module.head_dim, -1))
    decay = (-module.slope_rate.float()).view(1, -1, 1).expand(len(query), -1, -1)
    read = scan_rows(Scan(query=query, key=key, value=value, decay=decay)).to(hidden_states.dtype)
    out = module.norm(read.flatten(1).unsqueeze(0))
    return module.out_proj(torch.sigmoid(module.output_gate(hidden_states)) * out), None
