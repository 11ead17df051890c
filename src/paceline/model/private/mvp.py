"""MVP: a decoder of BART's kind. Its prompts, learnt keys before all others, are refused."""

from __future__ import annotations

from typing import Any

import torch

from paceline.errors import ModelError
from paceline.model.private.adapters import adapter
from paceline.model.private.bart_like import attended


@adapter("mvp.MvpAttention")
def _forward(
    module: Any,
    original: Any,
    hidden_states: torch.Tensor,
    key_value_states: Any = None,
    cache: Any = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    if more.get("attn_prompt") is not None:
        raise ModelError("MVP with prompts (use_prompt) puts learnt keys before all others, which would be lost")
    return attended(module, hidden_states, key_value_states, cache), None
