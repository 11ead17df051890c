"""Layers that predict further ahead, as some targets' own checkpoints bring them (DeepSeek-V3, arXiv 2412.19437).

One decoder layer of the target's family between a mixing of token and hidden state and a norm of its own; the embedding
and the language-model head are the target's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from paceline.heads.chained import ChainedHead
from paceline.heads.eagle import prepared
from paceline.heads.families import family_of
from paceline.model.interface import NO_MASK


@dataclass(frozen=True)
class MTPConfig:
    """What such a layer is. See `ChainedConfig` for what all kinds have."""

    layers: PreTrainedConfig
    taps: tuple[int, ...] = (-1,)
    index: int = 0  # of the layer among those of its family, where their kinds differ
    is_hidden_first: bool = False  # hidden state and then token are mixed; False: token and then hidden state
    norm_output: bool = True  # a draft goes on with what is behind the last norm; False: with what is before it

    @property
    def target_hidden_size(self) -> int:
        """Width of each tap."""
        return int(self.layers.hidden_size)

    @property
    def num_logits(self) -> int:
        """Tokens that the head gives logits for: all."""
        return int(self.layers.vocab_size)


class MTPHead(ChainedHead):
    """The network; names of its parts are MiMo's, which speculators has taken over."""

    kind = "mtp"

    def __init__(self, config: MTPConfig) -> None:
        super().__init__(config)
        layers, family = prepared(config.layers), family_of(config.layers)
        size, eps = layers.hidden_size, layers.rms_norm_eps
        self.token_layernorm, self.hidden_layernorm = family.norm(size, eps), family.norm(size, eps)
        self.input_proj = nn.Linear(2 * size, size, bias=False)
        self.layer = family.layer(layers, config.index)
        self.final_layernorm = family.norm(size, eps)
        self.rotary_emb = family.rotary(layers)

    def states(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `ChainedHead`."""
        return taps[0]

    def forward(
        self, tokens: torch.Tensor, states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ChainedHead`."""
        parts = [self.token_layernorm(self._embedded(tokens)), self.hidden_layernorm(states)]
        mixed = self.input_proj(torch.cat(parts[::-1] if self.config.is_hidden_first else parts, -1))
        around = self.rotary_emb(mixed, positions)
        states = self.layer(mixed, attention_mask=NO_MASK, position_ids=positions, position_embeddings=around)
        normed = self.final_layernorm(states)
        return normed if self.config.norm_output else states, self._logits(normed)
