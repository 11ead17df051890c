"""What `generate` returns, in transformers' own types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from paceline.accelerating.derived import derived, is_wanted, named
from paceline.accelerating.remembered import Remembered
from paceline.accelerating.rows import Prepared, Row

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Ended:
    """What decoding gave: the rows, what each came to, and what fills the shorter ones."""

    rows: Sequence[Row]
    outputs: Sequence[Sequence[int]]
    pad: int

    @property
    def length(self) -> int:
        """New tokens of the longest row."""
        return max(map(len, self.outputs))

    def behind(self, prompts: torch.Tensor) -> torch.Tensor:
        """Prompts (B, L) and the new tokens, (B, L + n)."""
        filled = [[*tokens, *[self.pad] * (self.length - len(tokens))] for tokens in self.outputs]
        return torch.cat([prompts, torch.tensor(filled, dtype=torch.long, device=prompts.device)], dim=-1)

    def kept(self, name: str, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The "logits" or "scores" of each place, (B, V) float32; behind a row's end the padding is certain."""
        lists = [getattr(row.law, name) for row in self.rows]
        certain = np.full_like(lists[0][0], -np.inf)
        certain[self.pad] = 0.0
        places = range(self.length)
        whole = [
            [kept[i] if i < len(out) else certain for kept, out in zip(lists, self.outputs, strict=True)]
            for i in places
        ]
        return tuple(torch.from_numpy(np.stack(place)).to(device) for place in whole)


def returned(model: PreTrainedModel, ended: Ended, prepared: Prepared, remembered: Remembered) -> Any:
    """Sequences, or a `ModelOutput` with what the settings ask for beside them."""
    from transformers.generation.utils import GenerateDecoderOnlyOutput, GenerateEncoderDecoderOutput

    config, sequences = prepared.config, ended.behind(prepared.input_ids)
    parts = _derived(model, ended, prepared, remembered) if is_wanted(prepared) else {}
    if not config.return_dict_in_generate:
        return sequences
    kept = {"scores": config.output_scores, "logits": config.output_logits}
    parts |= {name: ended.kept(name, sequences.device) for name, is_asked in kept.items() if is_asked}
    kind = GenerateEncoderDecoderOutput if model.config.is_encoder_decoder else GenerateDecoderOnlyOutput
    return kind(sequences=sequences, **named(kind, parts))


def _derived(model: PreTrainedModel, ended: Ended, prepared: Prepared, remembered: Remembered) -> dict[str, Any]:
    text, mask = ended.behind(prepared.prompts), prepared.inputs.get("attention_mask")
    parts = derived(model, text, prepared)
    if parts.get("cache") is not None and prepared.source is None:
        whole = None if mask is None else torch.nn.functional.pad(mask, (0, ended.length - 1), value=1)
        remembered.note(parts["cache"], text[:, :-1], whole)
    return parts
