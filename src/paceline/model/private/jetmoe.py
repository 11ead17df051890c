"""JetMoE: experts of the projections around attention, and experts as usual, behind a router of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from paceline.model.grouped import PackedLinears, added_up, choice_of, mixed, packed
from paceline.model.private.adapters import adapter, packer
from paceline.native.library import Library
from paceline.native.recording import emit_call

Routed = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor
]  # the router's logits (R, E), what it chose and how much (R, k)


@packer("jetmoe.JetMoeParallelExperts")
def _pack(module: Any, library: Library) -> None:
    module.packed = PackedLinears(library, packed(library, list(module._parameters.pop("weight").detach())))


def _routed(router: Any, rows: torch.Tensor) -> Routed:
    logits = router.layer(rows).float()
    top, index = logits.topk(router.top_k, dim=1)
    return logits, index, torch.softmax(top, dim=1).type_as(rows)


@adapter("jetmoe.JetMoeMoE")
def _experts(module: Any, original: Any, layer_input: torch.Tensor) -> torch.Tensor:
    if not hasattr(module.output_linear, "packed"):
        return original(layer_input)  # type: ignore[no-any-return]
    rows = layer_input.reshape(-1, module.input_size)
    _, index, weights = _routed(module.router, rows)
    out = torch.empty(rows.shape, dtype=rows.dtype)
    emit_call(partial(_mix, module), [out], [rows, index, weights])
    mixed_in: torch.Tensor = out.view(layer_input.shape) + module.bias
    return mixed_in


def _mix(module: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> None:
    def gate(values: torch.Tensor) -> torch.Tensor:
        first, second = values.chunk(2, dim=-1)
        return module.activation(first) * second  # type: ignore[no-any-return]

    out.copy_(mixed(module.input_linear.packed, module.output_linear.packed, gate, x, index, weights))


@adapter("jetmoe.JetMoeMoA", "map")
def _map(module: Any, original: Any, layer_input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Queries (1, R, k, N): those of each expert that a row chose, in the order of its choices."""
    if not hasattr(module.input_linear, "packed"):
        return original(layer_input)  # type: ignore[no-any-return]
    rows = layer_input.reshape(-1, module.input_size)
    logits, index, weights = _routed(module.router, rows)
    out = torch.empty(len(rows) * module.top_k, module.hidden_size, dtype=rows.dtype)
    emit_call(partial(_query, module), [out], [rows, index])
    return out.view(*layer_input.shape[:2], module.top_k, -1), logits, (index, weights)


def _query(module: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> None:
    choice = choice_of(index, module.num_experts)
    rows = x.index_select(0, choice.order // index.shape[1])
    out.index_copy_(0, choice.order, module.input_linear.packed(choice.groups, rows))


@adapter("jetmoe.JetMoeMoA", "reduce")
def _reduce(module: Any, original: Any, layer_input: torch.Tensor, topo_info: Any) -> torch.Tensor:
    """(1, R, H) the outputs of each choice, through its expert and added up."""
    if not hasattr(module.input_linear, "packed"):
        return original(layer_input, topo_info)  # type: ignore[no-any-return]
    index, weights = topo_info
    rows = layer_input.reshape(-1, layer_input.shape[-1])
    out = torch.empty(len(index), module.input_size, dtype=rows.dtype)
    emit_call(partial(_collect, module), [out], [rows, index, weights])
    collected: torch.Tensor = out.view(*layer_input.shape[:2], -1) + module.bias
    return collected


def _collect(module: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor) -> None:
    choice = choice_of(index, module.num_experts)
    parts = module.output_linear.packed(choice.groups, x.index_select(0, choice.order))
    out.copy_(added_up(choice, parts, weights))
