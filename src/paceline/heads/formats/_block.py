"""What the layouts of block heads have in common: names of tensors are the same, configurations are not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from paceline.heads.block import BlockHead
from paceline.heads.config import BlockConfig
from paceline.heads.formats._files import HeadFiles, filled, flag, integer
from paceline.heads.formats._layout import Opened
from paceline.heads.formats._vocabulary import target_ids

KINDS = {"qwen3": "qwen3", "llama": "llama"}  # of layers
_LEFT_OUT = re.compile(r"^(d2t|t2d|confidence_head\..*|verifier_.*|.*rotary_emb\..*)$")
_SLIDING = "sliding_attention"


@dataclass(frozen=True)
class BlockFields:
    """What a configuration says beside the sizes of its layers."""

    taps: tuple[int, ...]
    predicts_from_anchor: bool
    said: dict[str, Any] = field(repr=False)  # where block_size and the like are found


def opened(files: HeadFiles, layers: PreTrainedConfig, fields: BlockFields) -> Opened:
    """A block head of these layers."""
    said, vocab_size = fields.said, int(layers.vocab_size)
    size = files.config.get("draft_vocab_size") or vocab_size
    rank = integer(said, "markov_rank", 0, 2**12, 0)
    config = BlockConfig(
        layers=layers,
        taps=fields.taps,
        target_hidden_size=integer(files.config, "target_hidden_size", 1, 2**16, int(layers.hidden_size)),
        block_size=integer(said, "block_size", 1, 64, files.config.get("block_size")),
        mask_token_id=integer(said, "mask_token_id", 0, vocab_size - 1, files.config.get("mask_token_id")),
        predicts_from_anchor=fields.predicts_from_anchor,
        is_causal=flag(said, "causal", flag(said, "is_causal", is_causal(layers))),
        transition=str(said.get("markov_head_type", "vanilla")),
        rank=rank,
        draft_vocab_size=0
        if size == vocab_size
        else integer({"draft_vocab_size": size}, "draft_vocab_size", 1, vocab_size),
    )
    weights = {name: files.tensor(name) for name in files.names if not _LEFT_OUT.search(name)}
    module = filled(files, lambda: _made(config, weights.keys()), weights)
    return Opened(module, target_ids(files, config.num_logits, vocab_size))


def is_causal(layers: PreTrainedConfig) -> bool:
    """Layers that slide are causal within a block, the others see all of it; one kind must stand for both."""
    kinds = getattr(layers, "layer_types", None) or []
    return bool(kinds) and all(kind == _SLIDING for kind in kinds)


def _made(config: BlockConfig, names: Any) -> BlockHead:
    head = BlockHead(config)
    if "embed_tokens.weight" in names:
        head.embed_tokens = nn.Embedding(config.vocab_size, config.layers.hidden_size)
    if "lm_head.weight" in names:
        head.lm_head = nn.Linear(config.layers.hidden_size, config.num_logits, bias=False)
    return head
