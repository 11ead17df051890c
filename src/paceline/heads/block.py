"""A block head: one forward over a pending token and masks drafts all that is to follow it.

Its keys and values of the target's text come of the target's hidden states alone, so they are made once for each token,
by whoever runs the target, and lie in a cache like the target's own. Decoder layers are transformers'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

from paceline.errors import ModelError
from paceline.heads.config import BlockConfig
from paceline.heads.transitions import TRANSITIONS, Transition
from paceline.model.interface import ATTENTION_NAME, NO_MASK

_FAMILIES: dict[str, Any] = {"qwen3": (modeling_qwen3, "Qwen3"), "llama": (modeling_llama, "Llama")}


class BlockHead(nn.Module):
    """The network. Attention is answered by whoever runs it (`ForwardStep`), as that of a target is."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        layers = config.layers
        if layers.model_type not in _FAMILIES:
            raise ModelError(f"the head's layers are of {layers.model_type!r}; allowed: {', '.join(_FAMILIES)}")
        home, name = _FAMILIES[layers.model_type]
        layers._attn_implementation = ATTENTION_NAME
        norm, size, eps = getattr(home, f"{name}RMSNorm"), layers.hidden_size, layers.rms_norm_eps
        self.config = config
        self._rotate = home.apply_rotary_pos_emb
        self.fc = nn.Linear(len(config.taps) * config.target_hidden_size, size, bias=False)
        self.hidden_norm = norm(size, eps)
        self.layers = nn.ModuleList(
            getattr(home, f"{name}DecoderLayer")(layers, index) for index in range(layers.num_hidden_layers)
        )
        self.norm = norm(size, eps)
        self.rotary_emb = getattr(home, f"{name}RotaryEmbedding")(layers)
        self.markov_head = _transition(config)
        self.embed_tokens: nn.Module | None = None
        self.lm_head: nn.Module | None = None
        self.d2t: torch.Tensor | None = None  # (num_logits,) the target's token of each of the head's own

    @property
    def head_size(self) -> int:
        """Numbers of a key, and of a value."""
        return int(self.layers[0].self_attn.head_dim)  # type: ignore[union-attr,arg-type]

    def bind(self, target: PreTrainedModel) -> None:
        """Share the target's embedding and language-model head, where it has none of its own.

        Raises:
            ModelError: its hidden states are of another width.
        """
        wanted, own = self.config.target_hidden_size, target.config.get_text_config().hidden_size
        if wanted != own:
            raise ModelError(f"the head reads hidden states of {wanted}, and those of the target have {own}")
        is_shared = self.embed_tokens is None or self.lm_head is None
        if is_shared and self.config.layers.hidden_size != own:
            raise ModelError(
                f"the head is {self.config.layers.hidden_size} wide and brings no embedding and language-model head of "
                f"its own; the target's are {own} wide"
            )
        self.embed_tokens = self.embed_tokens or target.get_input_embeddings()
        self.lm_head = self.lm_head or target.get_output_embeddings()

    def context(self, taps: Sequence[torch.Tensor], positions: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (R, H_kv, D) of each layer, from the target's taps (1, R, H) at positions (1, R)."""
        states = self.hidden_norm(self.fc(torch.cat(list(taps), -1)))
        around = self.rotary_emb(states, positions)
        return [self._context_of(layer.self_attn, states, around) for layer in self.layers]

    def context_weights(self) -> list[torch.Tensor]:
        """What `context` multiplies by."""
        attentions: list[Any] = [layer.self_attn for layer in self.layers]
        return [self.fc.weight, *(part.weight for each in attentions for part in (each.k_proj, each.v_proj))]

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states (1, R, h) and logits (1, R, num_logits) of blocks' slots, for tokens and positions (1, R)."""
        assert self.embed_tokens is not None, "bound to a target"
        assert self.lm_head is not None
        states = self.embed_tokens(tokens)
        around = self.rotary_emb(states, positions)
        for layer in self.layers:
            states = layer(states, attention_mask=NO_MASK, position_ids=positions, position_embeddings=around)
        states = self.norm(states)
        return states, self.lm_head(states)

    def own_state(self) -> dict[str, torch.Tensor]:
        """Its weights by name, without those that it shares with the target."""
        shared = ("embed_tokens.", "lm_head.")
        return {name: weight for name, weight in self.state_dict().items() if not name.startswith(shared)}

    def _context_of(self, attention: Any, states: torch.Tensor, around: Any) -> tuple[torch.Tensor, torch.Tensor]:
        size = (*states.shape[:2], -1, attention.head_dim)
        keys = attention.k_proj(states).view(size)
        keys = attention.k_norm(keys) if hasattr(attention, "k_norm") else keys
        heads = keys.transpose(1, 2)
        _, turned = self._rotate(heads, heads, *around)
        return turned[0].transpose(0, 1), attention.v_proj(states).view(size)[0]


def _transition(config: BlockConfig) -> Transition | None:
    if not config.rank:
        return None
    if config.transition not in TRANSITIONS:
        raise ModelError(f"the head's transition is {config.transition!r}; allowed: {', '.join(TRANSITIONS)}")
    kind = TRANSITIONS[config.transition]
    return kind(config.vocab_size, config.num_logits, config.rank, config.layers.hidden_size)
