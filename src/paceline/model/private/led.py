"""LED: a decoder of BART's kind."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.private.adapters import adapter
from paceline.model.private.bart_like import attended


@adapter("led.LEDDecoderAttention")
def _forward(
    module: Any,
    original: Any,
    hidden_states: torch.Tensor,
    key_value_states: Any = None,
    cache: Any = None,
    **more: Any,
) -> tuple[torch.Tensor, None, Any]:
    return attended(module, hidden_states, key_value_states, cache), None, cache
