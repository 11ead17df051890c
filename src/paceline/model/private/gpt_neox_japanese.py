"""GPT-NeoX-Japanese: attention as usual."""

from __future__ import annotations

from typing import Any

import torch

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter


@adapter("gpt_neox_japanese.GPTNeoXJapaneseAttention", "_attn")
def _attn(
    module: Any, original: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any = None
) -> tuple[torch.Tensor, None]:
    return attend(query, key, value, scaling=1.0 / module.norm_factor).transpose(1, 2), None
