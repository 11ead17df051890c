"""Medusa's heads (arXiv 2401.10774): from one hidden state, the tokens behind the next one, each on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.heads.chained import check_sizes, counted

_MOST = 16  # heads, and layers of each


@dataclass(frozen=True)
class MedusaConfig:
    """How many heads there are, and of what."""

    num_heads: int
    num_layers: int  # blocks of each head
    hidden_size: int
    vocab_size: int  # 0: the target's
    taps: tuple[int, ...] = (-1,)  # as those of `ChainedConfig`
    has_own_logits: bool = True  # a language-model head of its own for each; False: the target's
    draft_vocab_size: int = 0  # tokens that they know, where they are fewer than the target's; 0: all

    def __post_init__(self) -> None:
        """ModelError where the numbers make no heads."""
        for name, count in (("medusa_num_heads", self.num_heads), ("medusa_num_layers", self.num_layers)):
            if not 1 <= count <= _MOST:
                raise ModelError(f"{name} is {count}; allowed: 1 to {_MOST}")

    @property
    def target_hidden_size(self) -> int:
        """Width of the tap."""
        return self.hidden_size

    @property
    def num_logits(self) -> int:
        """Tokens that each head gives logits for."""
        return self.draft_vocab_size or self.vocab_size


class _Block(nn.Module):
    """x + SiLU(W x + b)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = x + self.act(self.linear(x))
        return out


class MedusaHead(nn.Module):
    """All heads. Head i, at the row of position t, says what stands at t + 2 + i."""

    kind: ClassVar[str] = "medusa"

    def __init__(self, config: MedusaConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_Block(size) for _ in range(config.num_layers))) for _ in range(config.num_heads)
        )
        own = config.num_heads * config.has_own_logits
        self.lm_heads = nn.ModuleList(nn.Linear(size, config.num_logits, bias=False) for _ in range(own))
        self.d2t: torch.Tensor | None = None  # (num_logits,) the target's token of each of the heads' own
        self._shared: list[nn.Module] = []  # the target's language-model head, and no part of this one

    def bind(self, target: PreTrainedModel) -> None:
        """Share the target's language-model head, and count the tap from the front.

        Raises:
            ModelError: the two do not fit together.
        """
        check_sizes(self.config, target)
        self._shared = [target.get_output_embeddings()]
        text = target.config.get_text_config()
        taps = counted(self.config.taps, int(text.num_hidden_layers))
        self.config = replace(self.config, taps=taps, vocab_size=self.config.vocab_size or int(text.vocab_size))

    def states(self, taps: Sequence[torch.Tensor]) -> torch.Tensor:
        """What stands for positions (1, R, H): the tap as it is."""
        return taps[0]

    def forward(self, states: torch.Tensor) -> list[torch.Tensor]:
        """Logits (1, R, num_logits) of each head, of states (1, R, H)."""
        heads = self.lm_heads or self._shared * len(self.blocks)
        return [head(block(states)) for head, block in zip(heads, self.blocks, strict=True)]
