"""What `generate` returns, in transformers' own types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paceline.accelerating.derived import derived, is_wanted, named
from paceline.accelerating.rows import Row

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


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
    parts: dict[str, Any] = {name: ended.kept(name) for name, is_asked in kept.items() if is_asked}
    if is_wanted(config):
        parts |= derived(model, sequences, ended.input_ids.shape[1], config, inputs)
    kind = GenerateEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateDecoderOnlyOutput
    return kind(sequences=sequences, **named(kind, parts))
