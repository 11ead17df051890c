"""DBRX: experts as one tall matrix each of three."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from paceline.model.grouped import PackedLinears, mixed, packed
from paceline.model.private.adapters import adapter, packer
from paceline.native.library import Library
from paceline.native.recording import emit_call


@packer("dbrx.DbrxExperts")
def _pack(module: Any, library: Library) -> None:
    w1, v1, w2 = (
        module.mlp._parameters.pop(name).detach().view(module.num_experts, module.ffn_hidden_size, module.hidden_size)
        for name in ("w1", "v1", "w2")
    )
    ups = [torch.cat([gate, up]) for gate, up in zip(w1, v1, strict=True)]
    module.packed_up = PackedLinears(library, packed(library, ups))
    module.packed_down = PackedLinears(library, packed(library, [down.t() for down in w2]))


@adapter("dbrx.DbrxExperts")
def _forward(
    module: Any, original: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    if not hasattr(module, "packed_up"):
        return original(hidden_states, top_k_index, top_k_weights)  # type: ignore[no-any-return]
    rows = hidden_states.reshape(-1, module.hidden_size)
    out = torch.empty(rows.shape, dtype=rows.dtype)
    emit_call(partial(_mix, module), [out], [rows, top_k_index, top_k_weights])
    return out.view(hidden_states.shape)


def _mix(module: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> None:
    out.copy_(mixed(module.packed_up, module.packed_down, partial(_gate, module), x, index, weights))


def _gate(module: Any, values: torch.Tensor) -> torch.Tensor:
    gate, up = values.chunk(2, dim=-1)
    return module.mlp.activation_fn(gate) * up  # type: ignore[no-any-return]
