"""A Llama grown to a size at which forwards cost what they cost in practice, its function unchanged.

The bundled model says real text but its forward is over in a millisecond, so nothing that costs time beside it can be
judged; a large random model says nothing. An inflated model does both. What grows, and why the logits stay:

width   Residual channels beyond the old ones hold zero always: embeddings and output projections add nothing there.
        Zeros lower the mean of squares, by the exact power of four that the width grew by, so a norm with eps divided
        by that power and weights divided by its root gives the old channels their old values.
heads   New ones, whole groups of them, and new neurons meet columns of zeros in the output projections.
depth   New blocks come last and have output projections of zeros.

This is a function-preserving expansion: the idea of Net2Net (Chen, Goodfellow, Shlens, arXiv 1511.05641), which copies
units, done with zeros as by Gesmundo and Maile (arXiv 2308.06103). It is not trained on: only its cost is wanted.

All other new weights are random and nothing is sparse: every matrix is stored and multiplied in full. Only the order
of float sums may differ from the original's, where a kernel's order depends on the length of the sum.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from paceline.errors import ConfigError

_ZERO_ELSEWHERE = ("embed_tokens", "o_proj", "down_proj")  # what adds to the residual stream


@dataclass(frozen=True)
class Growth:
    """The sizes to grow to: the bundled target comes to 134 million parameters with these."""

    hidden_size: int = 1024
    num_layers: int = 12
    num_heads: int = 32
    num_kv_heads: int = 16
    intermediate_size: int = 2496


SIZES = {"134m": Growth(), "1b": Growth(4096, 8, 64, 32, 8192)}  # of the bundled target


def inflate(model: PreTrainedModel, growth: Growth | None = None, seed: int = 0) -> PreTrainedModel:
    """A new model of these sizes with the function, dtype and device of `model`, which stays as it is.

    Raises:
        ConfigError: not a Llama, or sizes that it cannot grow to.
    """
    if type(model) is not LlamaForCausalLM:
        raise ConfigError(f"the model to inflate is {type(model).__name__}; allowed: LlamaForCausalLM")
    config = inflated_config(model.config, growth or Growth())
    grown = _random(config, model.dtype, seed)
    grown.generation_config = copy.deepcopy(model.generation_config)
    _transplant(model, grown, _root(model.config.hidden_size, config.hidden_size))
    return grown.to(model.device).eval()


def inflated_config(config: LlamaConfig, growth: Growth) -> LlamaConfig:
    """The configuration of the grown model: its sizes, the head size spelt out, and the rescaled eps.

    Raises:
        ConfigError: a size below the original's, a width that is not a power of four times it, other head groups.
    """
    _check_not_below("num_layers", growth.num_layers, config.num_hidden_layers)
    _check_not_below("num_kv_heads", growth.num_kv_heads, config.num_key_value_heads)
    _check_not_below("intermediate_size", growth.intermediate_size, config.intermediate_size)
    group = config.num_attention_heads // config.num_key_value_heads
    if growth.num_heads != growth.num_kv_heads * group:
        wanted = f"{group} for each of the {growth.num_kv_heads} key-value heads, as in the model"
        raise ConfigError(f"num_heads is {growth.num_heads}; allowed: {wanted}")
    grown = copy.deepcopy(config)
    grown.head_dim = config.head_dim
    grown.rms_norm_eps = config.rms_norm_eps / _root(config.hidden_size, growth.hidden_size) ** 2
    grown.hidden_size = growth.hidden_size
    grown.num_hidden_layers = growth.num_layers
    grown.num_attention_heads = growth.num_heads
    grown.num_key_value_heads = growth.num_kv_heads
    grown.intermediate_size = growth.intermediate_size
    return grown


def num_parameters(config: LlamaConfig) -> int:
    """Parameters of a Llama of these sizes, counted without memory for them; tied ones count once."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in LlamaForCausalLM(config).parameters())


def _check_not_below(name: str, value: int, original: int) -> None:
    if value < original:
        raise ConfigError(f"{name} is {value}; allowed: at least the model's own {original}")


def _root(width: int, grown: int) -> int:
    """The factor by which zeros lower the root of the mean of squares: 2 ** k at 4 ** k times the width."""
    factor, remainder = divmod(grown, width)
    power = factor.bit_length() // 2
    if remainder or factor != 4**power:
        raise ConfigError(f"hidden_size is {grown}; allowed: the model's {width}, or 4, 16, ... times that")
    return int(2**power)


def _random(config: LlamaConfig, dtype: torch.dtype, seed: int) -> LlamaForCausalLM:
    """A model on the CPU with the initial weights of training, the caller's random state left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM._from_config(config, dtype=dtype)


@torch.no_grad()
def _transplant(model: LlamaForCausalLM, grown: LlamaForCausalLM, root: int) -> None:
    """Put the weights of `model` into the corner of those of `grown`, and zeros where nothing may be added."""
    originals = dict(model.named_parameters())
    for name, weight in grown.named_parameters():
        if name.split(".")[-2] in _ZERO_ELSEWHERE:
            weight.zero_()
        if name in originals:
            original = originals[name]
            corner = weight[tuple(slice(size) for size in original.shape)]
            corner.copy_(original / root if "norm" in name else original)
