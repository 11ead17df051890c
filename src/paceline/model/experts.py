"""Mixture-of-experts layers by the native kernels: rows are grouped by expert, and no row's bits know its group.

Registered with transformers as an implementation of its experts interface, so that routers, gates and layouts stay
the model's own. A row's experts are added up in the order in which the router ranked them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.integrations.moe import ExpertsInterface

from paceline.model.linears import inputs_of
from paceline.native.library import Library
from paceline.native.ops import PackedWeight, run
from paceline.native.quantized import QuantizedWeight
from paceline.native.recording import emit_call

EXPERTS_NAME = "paceline"


def is_experts(module: nn.Module) -> bool:
    """True for a layer's experts as transformers' experts interface knows them."""
    return all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "down_proj"))


class BlockExperts:
    """Quantised weights of a layer's experts, in place of a parameter: `[expert]` gives one's values in float32."""

    def __init__(self, weights: Sequence[QuantizedWeight]) -> None:
        self.weights = list(weights)

    def __getitem__(self, expert: int | torch.Tensor) -> torch.Tensor:
        return self.weights[int(expert)].values()


class NativeExperts(nn.Module):
    """The packed weights of a layer's experts, in place of the parameters that held them."""

    def __init__(self, library: Library, experts: Any) -> None:
        super().__init__()
        self._library = library
        name = "gate_up_proj" if experts.has_gate else "up_proj"
        self._up = self._pack(experts, name)
        self._down = self._pack(experts, "down_proj")
        self._up_bias = getattr(experts, f"{name}_bias", None) if experts.has_bias else None
        self._down_bias = experts.down_proj_bias if experts.has_bias else None
        experts.config._experts_implementation = EXPERTS_NAME

    def _pack(self, experts: Any, name: str) -> list[PackedWeight | QuantizedWeight]:
        if name not in experts._parameters:
            return getattr(experts, name).weights  # type: ignore[no-any-return]  # of a BlockExperts
        weights = experts._parameters.pop(name).detach()  # (experts, out, in), or transposed
        return [PackedWeight(self._library, w.t() if experts.is_transposed else w) for w in weights]

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with but the biases, as it lies in memory."""
        return [weight.data for weight in (*self._up, *self._down)]

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return sum(weight.num_bytes for weight in (*self._up, *self._down))

    def compute(
        self, experts: Any, out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """Fill `out` (R, H) with the experts `index` (R, k) of each row of `x` (R, H), weighted by `weights` (R, k)."""
        chosen = index.flatten().tolist()
        parts = torch.empty(len(chosen), x.shape[1], dtype=x.dtype)
        for expert in sorted(set(chosen)):
            places = torch.tensor([i for i, other in enumerate(chosen) if other == expert])
            rows = x.index_select(0, places // index.shape[1])
            up = self._linear(self._up[expert], rows, self._up_bias, expert)
            inner = experts._apply_gate(up) if experts.has_gate else experts.act_fn(up)
            down = self._linear(self._down[expert], inner.contiguous(), self._down_bias, expert)
            parts.index_copy_(0, places, experts.post_expert_norm(down) if experts.has_post_expert_norm else down)
        weighted = parts.view(*index.shape, -1) * weights.unsqueeze(-1)
        total = weighted[:, 0]
        for rank in range(1, index.shape[1]):
            total = total + weighted[:, rank]
        out.copy_(total)

    def _linear(
        self, weight: PackedWeight | QuantizedWeight, x: torch.Tensor, bias: torch.Tensor | None, expert: int
    ) -> torch.Tensor:
        out = torch.empty(len(x), weight.num_columns, dtype=weight.dtype)
        run(self._library, [weight.linear(out, inputs_of(weight, x), None if bias is None else bias[expert].detach())])
        return out


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
