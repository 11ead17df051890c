"""Heads that draft token by token: from a token and what stands for the text before it to the next of both.

Row i holds the token behind position i and the state of position i, and says what comes two behind it. The states of a
committed text are made of the target's taps; further along a draft, each row's own output takes their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from paceline.errors import ModelError


class ChainedConfig(Protocol):
    """What every such head says of itself; the rest is its kind's own."""

    @property
    def layers(self) -> PreTrainedConfig:
        """Of its own decoder layers; its `vocab_size` is the target's."""

    @property
    def taps(self) -> tuple[int, ...]:
        """Of the target. Before `bind`, -1 is behind its final norm, -2 behind its last layer; none: the usual."""

    @property
    def target_hidden_size(self) -> int:
        """Width of each tap."""

    @property
    def num_logits(self) -> int:
        """Tokens that the head gives logits for."""


class ChainedHead(nn.Module):
    """The network. Attention is answered by whoever runs it (`ForwardStep`), as that of a target is."""

    kind: ClassVar[str]

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens: nn.Module | None = None
        self.lm_head: nn.Module | None = None
        self.d2t: torch.Tensor | None = None  # (num_logits,) the target's token of each of the head's own

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self.config.layers.hidden_size)

    def bind(self, target: PreTrainedModel) -> None:
        """Share what the head has none of its own with the target, and count its taps from the front.

        Raises:
            ModelError: the two do not fit together.
        """
        check_sizes(self.config, target)
        self._check_embedding(int(target.config.get_text_config().vocab_size))
        if self.embed_tokens is None:
            self._check_width(target, "embedding")
            self.embed_tokens = target.get_input_embeddings()
        if self.lm_head is None:
            self._check_width(target, "language-model head")
            self.lm_head = target.get_output_embeddings()
        depth = int(target.config.get_text_config().num_hidden_layers)
        self.config = replace(self.config, taps=counted(self.config.taps, depth))

    def states(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """What stands for positions (1, R, width), of their taps (1, R, H) in the order of the configuration."""
        raise NotImplementedError

    def mixing_weights(self) -> list[torch.Tensor]:
        """What `states` reads."""
        return []

    def forward(
        self, tokens: torch.Tensor, states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """States of the next row (1, R, width) and logits (1, R, num_logits), for tokens and positions (1, R)."""
        raise NotImplementedError

    def _embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        assert self.embed_tokens is not None, "bound to a target"
        return self.embed_tokens(tokens)  # type: ignore[no-any-return]

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        assert self.lm_head is not None, "bound to a target"
        return self.lm_head(states)  # type: ignore[no-any-return]

    def _check_embedding(self, vocab_size: int) -> None:
        known = getattr(self.embed_tokens, "num_embeddings", vocab_size)
        if known < vocab_size:
            raise ModelError(f"the head's embedding knows {known} tokens; needed: the target's {vocab_size}")

    def _check_width(self, target: PreTrainedModel, what: str) -> None:
        own = int(target.config.get_text_config().hidden_size)
        if self.width != own:
            raise ModelError(f"the head is {self.width} wide and brings no {what}; the target's is {own} wide")


def check_sizes(config: Any, target: PreTrainedModel) -> None:
    """ModelError if a head of this configuration was made for a target of other sizes."""
    text = target.config.get_text_config()
    if config.target_hidden_size != text.hidden_size:
        raise ModelError(
            f"the head reads hidden states of {config.target_hidden_size}, and those of the target have "
            f"{text.hidden_size}: it was made for another one"
        )
    if config.num_logits > text.vocab_size:
        raise ModelError(f"the head knows {config.num_logits} tokens; allowed: the target's {text.vocab_size} at most")


def counted(taps: Sequence[int], depth: int) -> tuple[int, ...]:
    """Taps from the front, of a target of `depth` layers; those of EAGLE's own code where none are named.

    Raises:
        ModelError: the target has no such tap.
    """
    if not taps:
        taps = (2, depth // 2, depth - 3)
    found = tuple(tap if tap >= 0 else depth + 2 + tap for tap in taps)
    if not all(0 <= tap <= depth + 1 for tap in found):
        raise ModelError(f"the head reads taps {list(found)}; allowed for a target of {depth} layers: 0 to {depth + 1}")
    return found
