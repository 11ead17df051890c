"""Mixture-of-experts layers by the native kernels: rows are grouped by expert, and no row's bits know its group.

Registered with transformers as an implementation of its experts interface, so that routers, gates and layouts stay
the model's own. A row's experts are added up in the order in which the router ranked them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ExpertsInterface, _default_apply_gate

from paceline.model.grouped import Gate, Group, PackedLinears, mixed, packed
from paceline.native.immediate import Immediate
from paceline.native.library import Library
from paceline.native.quantized import QuantizedWeight
from paceline.native.recording import emit_call

EXPERTS_NAME = "paceline"


def is_experts(module: nn.Module) -> bool:
    """True for a layer's experts as transformers' experts interface knows them."""
    return all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "down_proj"))


class BlockExperts:
    """Quantised weights of a layer's experts, in place of a parameter: `[expert]` gives one's values in float32."""

    def __init__(self, weights: Sequence[QuantizedWeight], is_transposed: bool) -> None:
        self.weights = list(weights)
        self._is_transposed = is_transposed

    def __getitem__(self, expert: int | torch.Tensor) -> torch.Tensor:
        values = self.weights[int(expert)].values()
        return values.t() if self._is_transposed else values


class NativeExperts(nn.Module):
    """The packed weights of a layer's experts, in place of the parameters that held them."""

    def __init__(self, library: Library, experts: Any) -> None:
        super().__init__()
        self._library = library
        name = "gate_up_proj" if experts.has_gate else "up_proj"
        self._up = self._pack(library, experts, name)
        self._down = self._pack(library, experts, "down_proj")
        experts.config._experts_implementation = EXPERTS_NAME

    def _pack(self, library: Library, experts: Any, name: str) -> PackedLinears:
        biases = getattr(experts, f"{name}_bias", None) if experts.has_bias else None
        if name not in experts._parameters:
            return PackedLinears(library, getattr(experts, name).weights, biases)  # of a BlockExperts
        weights = experts._parameters.pop(name).detach()  # (experts, out, in), or transposed
        return PackedLinears(library, packed(library, [w.t() if experts.is_transposed else w for w in weights]), biases)

    def compute(
        self, experts: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """Fill `out` (R, H) with the experts `index` (R, k) of each row of `x` (R, H), weighted by `weights` (R, k)."""

        def down(groups: Sequence[Group], inner: torch.Tensor) -> torch.Tensor:
            values = self._down(groups, inner)
            return experts.post_expert_norm(values) if experts.has_post_expert_norm else values  # type: ignore[no-any-return]

        gate = experts._apply_gate if experts.has_gate else experts.act_fn
        if experts.has_gate and type(experts)._apply_gate is not _default_apply_gate:
            gate = partial(self._exactly, gate)  # it may be more than the activation, whose vectors are whole
        out.copy_(mixed(self._up, down, gate, x, index, weights))

    def _exactly(self, gate: Gate, values: torch.Tensor) -> torch.Tensor:
        with Immediate(self._library):
            return gate(values)


def paceline_experts(
    experts: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The function registered with transformers: (R, H), (R, k) and (R, k) to (R, H)."""
    out = torch.empty(hidden_states.shape, dtype=hidden_states.dtype)

    def compute(*tensors: torch.Tensor) -> None:
        experts.packed.compute(experts, *tensors)

    emit_call(compute, [out], [hidden_states, top_k_index, top_k_weights])
    return out


ExpertsInterface.register(EXPERTS_NAME, paceline_experts)
