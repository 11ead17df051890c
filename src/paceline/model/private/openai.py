"""OpenAI's first GPT: attention as usual; keys come transposed."""

from __future__ import annotations

import math
from typing import Any

import torch

from paceline.model.interface import attend
from paceline.model.private.adapters import adapter


@adapter("openai.Attention", "_attn")
def _attn(
    module: Any, original: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any
) -> list[torch.Tensor]:
    scaling = 1.0 / math.sqrt(value.shape[-1]) if module.scale else 1.0
    return [attend(query, key.transpose(-1, -2), value, scaling=scaling).transpose(1, 2)]
