"""A tiny head of every kind, of random weights, for any target; and drafters over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, PreTrainedModel, Qwen2Config

from heads.making import block_head
from paceline.drafters import make
from paceline.engine.request import Environment
from paceline.heads.eagle import Eagle3Head, EagleConfig
from paceline.heads.medusa import MedusaConfig, MedusaHead
from paceline.heads.mtp import MTPConfig, MTPHead
from paceline.model.hosting import Host


def _layers(target: PreTrainedModel) -> dict[str, Any]:
    config = target.config.get_text_config()
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": 40,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 1,
    }


def _eagle(target: PreTrainedModel, **more: Any) -> Eagle3Head:
    layers = LlamaConfig(**_layers(target))
    return Eagle3Head(EagleConfig(layers, (0, 1, 2), layers.hidden_size, **more), 3, False)


def _medusa(target: PreTrainedModel) -> MedusaHead:
    return MedusaHead(MedusaConfig(4, 1, target.config.hidden_size, target.config.vocab_size))


KINDS: dict[str, tuple[str, Callable[[PreTrainedModel], Any]]] = {
    "block": ("block", block_head),
    "eagle": ("eagle", _eagle),
    "p-eagle": ("eagle", lambda target: _eagle(target, mask_token_id=3)),
    "mtp": ("mtp", lambda target: MTPHead(MTPConfig(Qwen2Config(**_layers(target)), is_hidden_first=True))),
    "medusa": ("medusa", _medusa),
}


def drafter_of(kind: str, host: Host, seed: int = 0) -> Any:
    """A drafter of a kind over a head of random weights, as an engine would attach it."""
    name, make_head = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make_head(host.model)
        for weight in head.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.3)
    environment = Environment(None, host.model.config.get_text_config().vocab_size, "cpu", host=host)
    head = head.to(host.model.dtype).eval().requires_grad_(False)
    if name == "block":
        block: Any = make(name, path=head)
        block.attach(environment)
        return block
    drafter: Any = make(name, path="given", probe=False)
    head.bind(host.model)
    drafter._run(head, environment)
    return drafter
