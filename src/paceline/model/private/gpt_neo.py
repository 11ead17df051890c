"""GPT-Neo: every second layer sees a window; scores are not scaled."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter


@adapter("gpt_neo.GPTNeoSelfAttention", "_attn")
def _attn(
    module: Any, original: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any = None
) -> tuple[torch.Tensor, None]:
    window = module.config.window_size if module.attention_type == "local" else 0
    return attend(query, key, value, scaling=1.0, window=window).transpose(1, 2), None
