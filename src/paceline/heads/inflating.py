"""A block head grown with its target: the same function at the cost of a larger one.

The rules are those of `bundled/grow.py`. Residual channels beyond the old ones hold zero always, so a norm over them is
rescaled; new heads and neurons meet columns of zeros. All else that is new is random, and multiplied in full.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from transformers import LlamaConfig

from paceline.bundled.grow import Growth
from paceline.heads.block import BlockHead
from paceline.heads.config import BlockConfig

_ZERO_ELSEWHERE = ("fc", "o_proj", "down_proj")  # what adds to the residual stream, or begins it
_OF_ONE_HEAD = ("q_norm", "k_norm")  # as long as a head is, which stays


def inflate_head(head: BlockHead, target: LlamaConfig, growth: Growth, seed: int = 0) -> BlockHead:
    """A new head for `inflate(target, growth)` with the proposals of `head`, which stays as it is; float32, unbound."""
    grown = _random(_grown_config(head.config, target, growth), seed)
    root = (growth.hidden_size // target.hidden_size) ** 0.5
    originals = dict(head.own_state())
    with torch.no_grad():
        for name, weight in grown.named_parameters():
            _transplant(name, originals[name].float(), weight, root, len(head.config.taps))
    grown.d2t = head.d2t
    return grown


def _grown_config(config: BlockConfig, target: LlamaConfig, growth: Growth) -> BlockConfig:
    layers, width = copy.deepcopy(config.layers), growth.hidden_size // target.hidden_size
    factor = growth.num_heads // target.num_attention_heads
    layers.hidden_size *= width
    layers.intermediate_size = layers.intermediate_size * growth.intermediate_size // target.intermediate_size
    layers.num_attention_heads *= factor
    layers.num_key_value_heads *= factor
    layers.rms_norm_eps /= width
    return replace(config, layers=layers, target_hidden_size=growth.hidden_size)


def _random(config: BlockConfig, seed: int) -> BlockHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BlockHead(config).eval()


def _transplant(name: str, old: torch.Tensor, new: torch.Tensor, root: float, num_taps: int) -> None:
    """Put an old weight into the corner of a new one, of each tap's part where it reads several."""
    part = name.split(".")[-2]
    if part in _ZERO_ELSEWHERE:
        new.zero_()
    is_rescaled = "norm" in part and part not in _OF_ONE_HEAD
    if part == "fc":
        old, new = (weight.view(len(weight), num_taps, -1) for weight in (old, new))
    if name == "markov_head.gate_proj.weight":  # it reads a hidden state, then the token before
        rank = len(old)
        new[:, -rank:].copy_(old[:, -rank:])
        old = old[:, :-rank]
    new[tuple(slice(size) for size in old.shape)].copy_(old / root if is_rescaled else old)
