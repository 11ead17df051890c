"""EAGLE's heads: one decoder layer or a few that go on with the target's own hidden states.

The third version (arXiv 2503.01840; 3.1 and P-EAGLE, arXiv 2602.01469) lays token and state side by side into its first
layer's attention. The first two, and HASS (arXiv 2408.15766), mix them before plain layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from paceline.errors import ModelError
from paceline.heads.chained import ChainedHead
from paceline.heads.families import Family, family_of
from paceline.model.interface import ATTENTION_NAME, NO_MASK
from paceline.model.layers import final_norm

_TAP_NORMS = ("", "each", "all")


@dataclass(frozen=True)
class EagleConfig:
    """What an EAGLE head is, and by which conventions it was trained. See `ChainedConfig` for what all kinds have."""

    layers: PreTrainedConfig
    taps: tuple[int, ...]
    target_hidden_size: int
    tap_norm: str = ""  # before taps are mixed: none, one for "each", or one over "all" side by side
    norm_before_residual: bool = False  # the first layer adds to the state behind its norm; False: to the state
    norm_output: bool = False  # a draft goes on with what is behind the last norm (3.1); False: with what is before it
    norm_logits: bool = True  # logits come of what is behind the last norm; False: of what is before it
    draft_vocab_size: int = 0  # tokens that the head knows, where they are fewer than the target's; 0: all
    mask_token_id: int = -1  # of P-EAGLE: what stands for tokens that are not known; -1: it has none

    def __post_init__(self) -> None:
        """ModelError where the values make no head."""
        if self.tap_norm not in _TAP_NORMS:
            raise ModelError(f"the head's taps are normed by {self.tap_norm!r}; allowed: none, each, all")
        if not -1 <= self.mask_token_id < int(self.layers.vocab_size):
            raise ModelError(f"mask_token_id is {self.mask_token_id}; allowed: a token below {self.layers.vocab_size}")

    @property
    def num_logits(self) -> int:
        """Tokens that the head gives logits for."""
        return self.draft_vocab_size or int(self.layers.vocab_size)


class Eagle3Head(ChainedHead):
    """EAGLE-3, EAGLE-3.1 and P-EAGLE: `num_taps` hidden states of the target become one state."""

    kind = "eagle"

    def __init__(self, config: EagleConfig, num_taps: int, has_embedding: bool) -> None:
        super().__init__(config)
        layers, family = prepared(config.layers), family_of(config.layers)
        size, eps, wide = layers.hidden_size, layers.rms_norm_eps, config.target_hidden_size
        self.fc = nn.Linear(num_taps * wide, size, bias=False)
        self.fc_norm = nn.ModuleList(family.norm(wide, eps) for _ in range(num_taps * (config.tap_norm == "each")))
        self.input_norm = family.norm(num_taps * wide, eps) if config.tap_norm == "all" else None
        self.layers = nn.ModuleList(family.layer(layers, index) for index in range(layers.num_hidden_layers))
        _widen(self.layers[0], family, layers)
        self.norm = family.norm(size, eps)
        self.rotary_emb = family.rotary(layers)
        self.lm_head = nn.Linear(size, config.num_logits, bias=False)
        self.embed_tokens = nn.Embedding(layers.vocab_size, size) if has_embedding else None
        is_parallel = config.mask_token_id >= 0
        self.mask_hidden = nn.Parameter(torch.zeros(1, 1, num_taps * wide)) if is_parallel else None

    def states(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `ChainedHead`."""
        if self.config.tap_norm == "each":
            taps = [norm(tap) for norm, tap in zip(self.fc_norm, taps, strict=True)]
        beside = torch.cat(list(taps), -1)
        return self.fc(beside if self.input_norm is None else self.input_norm(beside))  # type: ignore[no-any-return]

    def mixing_weights(self) -> list[torch.Tensor]:
        """See `ChainedHead`."""
        return [self.fc.weight]

    def mask_state(self) -> torch.Tensor:
        """(1, 1, width): what stands for positions that the target has not seen, of P-EAGLE."""
        assert self.mask_hidden is not None, "a head that drafts in parallel"
        return self.states(torch.split(self.mask_hidden, self.config.target_hidden_size, -1))

    def forward(
        self, tokens: torch.Tensor, states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ChainedHead`."""
        around = self.rotary_emb(states, positions)
        where = {"attention_mask": NO_MASK, "position_ids": positions, "position_embeddings": around}
        states = self._first(self._embedded(tokens), states, where)
        for layer in self.layers[1:]:
            states = layer(states, **where)
        normed = self.norm(states)
        logits = self._logits(normed if self.config.norm_logits else states)
        return normed if self.config.norm_output else states, logits

    def _first(self, embedded: torch.Tensor, states: torch.Tensor, where: dict[str, Any]) -> torch.Tensor:
        layer: Any = self.layers[0]
        normed = layer.hidden_norm(states)
        beside = torch.cat([layer.input_layernorm(embedded), normed], -1)
        out, _ = layer.self_attn(hidden_states=beside, **where)
        out = out + (normed if self.config.norm_before_residual else states)
        return out + layer.mlp(layer.post_attention_layernorm(out))  # type: ignore[no-any-return]


class Eagle1Head(ChainedHead):
    """EAGLE-1, EAGLE-2 and HASS: what it makes are hidden states as the target's own, for the target's own head.

    Those behind the final norm go to it as they are, those before it through that norm: taps -1 and -2.
    """

    kind = "eagle"

    def __init__(self, config: EagleConfig, has_bias: bool, has_embedding: bool) -> None:
        super().__init__(config)
        layers, family = prepared(config.layers), family_of(config.layers)
        size = layers.hidden_size
        self.fc = nn.Linear(2 * size, size, bias=has_bias)
        self.layers = nn.ModuleList(family.layer(layers, index) for index in range(layers.num_hidden_layers))
        self.layers[0].input_layernorm = nn.Identity()
        self.rotary_emb = family.rotary(layers)
        self.embed_tokens = nn.Embedding(layers.vocab_size, size) if has_embedding else None
        self._final_norm: list[nn.Module] = []  # the target's, and no part of this one

    def bind(self, target: PreTrainedModel) -> None:
        """See `ChainedHead`."""
        super().bind(target)
        self._final_norm = [final_norm(target)]
        self._depth = int(target.config.get_text_config().num_hidden_layers)

    def states(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `ChainedHead`."""
        return taps[0]

    def forward(
        self, tokens: torch.Tensor, states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ChainedHead`."""
        around = self.rotary_emb(states, positions)
        states = self.fc(torch.cat([self._embedded(tokens), states], -1))
        for layer in self.layers:
            states = layer(states, attention_mask=NO_MASK, position_ids=positions, position_embeddings=around)
        is_normed = self.config.taps[0] > self._depth
        return states, self._logits(states if is_normed else self._final_norm[0](states))


def prepared(layers: PreTrainedConfig) -> PreTrainedConfig:
    """A configuration whose layers' attention is ours."""
    layers._attn_implementation = ATTENTION_NAME
    layers._experts_implementation = "eager"
    return layers


def _widen(layer: Any, family: Family, layers: PreTrainedConfig) -> None:
    """Have a layer's attention take token and state side by side."""
    for name in ("q_proj", "k_proj", "v_proj"):
        old = getattr(layer.self_attn, name)
        setattr(layer.self_attn, name, nn.Linear(2 * old.in_features, old.out_features, bias=old.bias is not None))
    layer.hidden_norm = family.norm(layers.hidden_size, layers.rms_norm_eps)
