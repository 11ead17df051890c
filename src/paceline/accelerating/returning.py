"""What `generate` returns, in transformers' own types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paceline.accelerating.rows import Row

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

_CACHES = ("cache", "past_key_values", "cache_params")  # what releases of transformers call it


@dataclass(frozen=True)
class Ended:
    """What decoding gave: the rows as they were (B, L), what each came to, and what fills the shorter ones."""

    input_ids: torch.Tensor
    rows: Sequence[Row]
    outputs: Sequence[Sequence[int]]
    pad: int

    @property
    def length(self) -> int:
        """New tokens of the longest row."""
        return max(map(len, self.outputs))

    def sequences(self) -> torch.Tensor:
        """Prompts and new tokens, (B, L + n)."""
        filled = [[*tokens, *[self.pad] * (self.length - len(tokens))] for tokens in self.outputs]
        return torch.cat([self.input_ids, self.input_ids.new_tensor(filled)], dim=-1)

    def kept(self, name: str) -> tuple[torch.Tensor, ...]:
        """The "logits" or "scores" of each place, (B, V) float32; behind a row's end the padding is certain."""
        lists = [getattr(row.law, name) for row in self.rows]
        certain = np.full_like(lists[0][0], -np.inf)
        certain[self.pad] = 0.0
        places = range(self.length)
        whole = [
            [kept[i] if i < len(out) else certain for kept, out in zip(lists, self.outputs, strict=True)]
            for i in places
        ]
        return tuple(torch.from_numpy(np.stack(place)).to(self.input_ids.device) for place in whole)


def returned(model: PreTrainedModel, ended: Ended, config: GenerationConfig, inputs: dict[str, Any]) -> Any:
    """Sequences, or a `ModelOutput` with what the settings ask for beside them."""
    from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

    sequences = ended.sequences()
    if not config.return_dict_in_generate:
        return sequences
    kept = {"scores": config.output_scores, "logits": config.output_logits}
    parts = {name: ended.kept(name) for name, is_asked in kept.items() if is_asked}
    kind = GenerateEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateDecoderOnlyOutput
    if config.use_cache:
        named = next(name for name in _CACHES if name in {field.name for field in fields(kind)})
        parts[named] = _cache(model, ended, config, inputs)
    return kind(sequences=sequences, **parts)


def _cache(model: PreTrainedModel, ended: Ended, config: GenerationConfig, inputs: dict[str, Any]) -> Any:
    """The cache of the sequences but their last tokens, as transformers leaves it: by one forward of the model."""
    behind = model._update_model_kwargs_for_generation({}, inputs, model.config.is_encoder_decoder, ended.length - 1)
    found = model._prefill(ended.sequences()[:, :-1], config, behind)
    return next((found[name] for name in _CACHES if found.get(name) is not None), None)
