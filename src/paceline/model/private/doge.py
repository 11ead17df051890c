"""Doge: a key adds to its scores what its value says, up to the length from which it would pick keys by that."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.models.doge.modeling_doge import apply_rotary_pos_emb

from paceline.model.numerics import WholeVectors
from paceline.model.private.adapters import adapter, attend_with_key_bias, merged


class _Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp()


_softplus, _exponential = WholeVectors(nn.Softplus()), WholeVectors(_Exponential())


@adapter("doge.DogeAttention")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, position_embeddings: Any, *rest: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    def projected(linear: Any) -> torch.Tensor:
        return linear(hidden_states).view(*hidden_states.shape[:-1], -1, module.head_dim)  # type: ignore[no-any-return]

    query = module.q_norm(projected(module.q_proj)).transpose(1, 2)
    key = module.k_norm(projected(module.k_proj)).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    value = projected(module.v_proj)
    added = _exponential(module.A * _softplus(module.dt_proj(value.flatten(-2)))).transpose(1, 2)
    bias = added * (1.0 / module.scaling)
    out = attend_with_key_bias(query, key, value.transpose(1, 2), bias, scaling=module.scaling)
    return module.o_proj(merged(out)), None
