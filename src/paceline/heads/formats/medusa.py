"""Medusa's heads from safetensors: by their authors' names, with and without heads of their own, and by vLLM's."""

from __future__ import annotations

import re

import torch

from paceline.errors import ModelError
from paceline.heads.formats._files import HeadFiles, filled, integer
from paceline.heads.formats._layout import Layout, Opened
from paceline.heads.medusa import MedusaConfig, MedusaHead

_AUTHORS = re.compile(r"^(?:medusa_head\.)?(\d+)\.(\d+)\.(linear\.)?(weight|bias)$")
_VLLM_BLOCK = re.compile(r"^blocks\.(\d+)\.layers\.(\d+)\.(weight|bias)$")
_TOKENS = "token_map"
_TYPES = ("medusa",)  # vLLM's


def fits(files: HeadFiles) -> bool:
    """See `Layout`."""
    says_so = "medusa_num_heads" in files.config or files.config.get("model_type") in _TYPES
    return not files.speculators_type and says_so


def open_medusa(files: HeadFiles) -> Opened:
    """See `Layout`."""
    num_layers = integer(files.config, "medusa_num_layers", 1, 16, files.config.get("num_hidden_layers", 1))
    weights = {_ours(name, num_layers): files.tensor(name) for name in files.names if name != _TOKENS}
    first = weights.get("blocks.0.0.linear.weight")
    if first is None:
        raise ModelError(
            f"{files.folder}: the heads lack their first block; there are {', '.join(sorted(weights)[:4])}"
        )
    own = weights.get("lm_heads.0.weight")
    vocab_size = integer(files.config, "vocab_size", 0, 2**22, 0 if own is None else own.shape[0])
    known = own is not None and own.shape[0] != vocab_size
    config = MedusaConfig(
        num_heads=integer(files.config, "medusa_num_heads", 1, 16, files.config.get("num_heads")),
        num_layers=num_layers,
        hidden_size=integer(files.config, "hidden_size", 1, 2**16, first.shape[0]),
        vocab_size=vocab_size,
        has_own_logits=own is not None,
        draft_vocab_size=own.shape[0] if own is not None and known else 0,
    )
    return Opened(filled(files, lambda: MedusaHead(config), weights), _vocabulary(files, config))


def _ours(name: str, num_layers: int) -> str:
    """Our name of a tensor: `blocks.HEAD.LAYER.linear.weight` or `lm_heads.HEAD.weight`."""
    theirs = _AUTHORS.search(name)
    if theirs is not None:
        head, layer, is_block, kind = theirs.groups()
        if is_block or int(layer) < num_layers:
            return f"blocks.{head}.{layer}.linear.{kind}"
        return f"lm_heads.{head}.{kind}"
    block = _VLLM_BLOCK.search(name)
    return name if block is None else "blocks.{}.{}.linear.{}".format(*block.groups())


def _vocabulary(files: HeadFiles, config: MedusaConfig) -> list[torch.Tensor]:
    """The target's tokens that the heads know, where they know few."""
    if not config.draft_vocab_size:
        return []
    if _TOKENS not in files.names:
        raise ModelError(f"the heads know {config.num_logits} of {config.vocab_size} tokens; {_TOKENS} would say which")
    ids = files.tensors[files.names[_TOKENS]].long()
    is_whole = ids.shape == (config.num_logits,) and len(set(ids.tolist())) == len(ids)
    if not is_whole or not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
        raise ModelError(f"{_TOKENS} names no {config.num_logits} different tokens below {config.vocab_size}")
    return [ids]


LAYOUT = Layout("Medusa", fits, open_medusa)
