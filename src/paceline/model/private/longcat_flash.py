"""LongCat Flash: some of the experts give a row back as it came."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from paceline.model.grouped import PackedLinears, added_up, choice_of, packed
from paceline.model.private.adapters import adapter, packer
from paceline.native.library import Library
from paceline.native.recording import emit_call


@packer("longcat_flash.LongcatFlashExperts")
def _pack(module: Any, library: Library) -> None:
    for name in ("gate_up_proj", "down_proj"):
        weights = module._parameters.pop(name).detach()[: module.num_routed_experts]
        setattr(module, f"packed_{name}", PackedLinears(library, packed(library, list(weights))))


@adapter("longcat_flash.LongcatFlashExperts")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    if not hasattr(module, "packed_down_proj"):
        return original(hidden_states, top_k_index, top_k_weights)  # type: ignore[no-any-return]
    out = torch.empty(hidden_states.shape, dtype=hidden_states.dtype)
    emit_call(partial(_mix, module), [out], [hidden_states, top_k_index, top_k_weights])
    return out


def _mix(module: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> None:
    choice = choice_of(index, module.num_routed_experts)
    rows = x.index_select(0, choice.order // index.shape[1])
    gate, up = module.packed_gate_up_proj(choice.groups, rows).chunk(2, dim=-1)
    parts = module.packed_down_proj(choice.groups, module.act_fn(gate) * up)
    computed = choice.groups[-1].end if choice.groups else 0
    parts[computed:] = rows[computed:]
    out.copy_(added_up(choice, parts, weights))
