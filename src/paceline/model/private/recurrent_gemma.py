"""RecurrentGemma: a short convolution, then a gated recurrence of each channel by itself (RG-LRU, arXiv 2402.19427)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from paceline.model.numerics import in_whole_vectors
from paceline.model.private.adapters import adapter
from paceline.model.recurrence import convolve_rows, scan_rows
from paceline.model.scanning import Scan


@adapter("recurrent_gemma.RecurrentGemmaRecurrentBlock")
def _block(
    module: Any, original: Any, input_states: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    gate = module.act_fn(module.linear_y(input_states))
    conv = module.conv_1d
    mixed = convolve_rows(module.linear_x(input_states)[0], conv.weight.squeeze(1), conv.bias).unsqueeze(0)
    return module.linear_out(module.rg_lru(mixed, position_ids) * gate), None


@adapter("recurrent_gemma.RecurrentGemmaRglru")
def _recurrence(module: Any, original: Any, activations: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
    is_first = (position_ids == 0).unsqueeze(-1)
    inward = torch.sigmoid(_by_heads(activations, module.input_gate_weight, module.input_gate_bias))
    kept = torch.sigmoid(_by_heads(activations, module.recurrent_gate_weight, module.recurrent_gate_bias))
    decay = -8.0 * kept * in_whole_vectors(functional.softplus, module.recurrent_param)
    scale = torch.sqrt(1 - torch.exp(2 * decay))
    scale = torch.where(is_first, torch.ones_like(scale), scale)
    added = (activations * inward * scale.to(activations.dtype))[0].float().unsqueeze(1)
    one = torch.ones(len(added), 1, 1, device=added.device)
    rate = torch.ones(1, added.shape[2], device=added.device)
    rows = Scan(query=one, key=one, value=added, decay=decay[0].float().unsqueeze(1), rate=rate)
    return scan_rows(rows).squeeze(1).unsqueeze(0).to(activations.dtype)


def _by_heads(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """(1, R, C) of `x` (1, R, C): each head's channels by its own matrix (H, W, W)."""
    parts = torch.split(x[0], weight.shape[1], 1)
    heads = zip(parts, weight, bias, strict=True)
    return torch.cat([functional.linear(part, matrix.t(), added) for part, matrix, added in heads], 1).unsqueeze(0)
