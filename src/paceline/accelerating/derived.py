"""Attentions, hidden states and the cache of a finished text: by one forward of the model itself, cut into its steps.

A causal model's rows do not depend on what follows, so a forward over the whole text has what each step had.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from paceline.accelerating.rows import Prepared

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

CACHES = ("cache", "past_key_values", "cache_params")  # what releases of transformers call it
Cut = Callable[[torch.Tensor, int, int], torch.Tensor]  # rows from one place up to another, and what they could see


@dataclass(frozen=True)
class Steps:
    """How generate came to a text: `start` tokens, then one after the other up to `end`, with a cache or without."""

    start: int
    end: int
    has_cache: bool

    def cut(self, layers: tuple[torch.Tensor | None, ...] | None, cut: Cut) -> tuple[Any, ...]:
        """What each step had of each layer's tensor."""
        ends = range(self.start, self.end + 1)
        firsts = [end - 1 if self.has_cache and end > self.start else 0 for end in ends]
        return tuple(
            None if layers is None else tuple(None if x is None else cut(x, first, end) for x in layers)
            for first, end in zip(firsts, ends, strict=True)
        )


def is_wanted(prepared: Prepared) -> bool:
    """Whether anything of this is asked for; a cache that the caller brought is gone on with in any case."""
    config = prepared.config
    asked = (config.use_cache, config.output_attentions, config.output_hidden_states)
    return bool(config.return_dict_in_generate and any(asked)) or prepared.has_own_cache


def derived(model: PreTrainedModel, text: torch.Tensor, prepared: Prepared) -> dict[str, Any]:
    """The parts of `ModelOutput` by name, for prompts gone on with: the whole text (B, S + n)."""
    config, is_pair, read = prepared.config, model.config.is_encoder_decoder, text[:, :-1]
    start = prepared.prompts.shape[1]
    inputs = {name: value for name, value in prepared.inputs.items() if name != "inputs_embeds"}
    inputs = model._update_model_kwargs_for_generation({}, inputs, is_pair, read.shape[1] - start)
    config._mask_length = read.shape[1]  # where all is seen: so much, of which a cache may hold the beginning
    outputs = model._prefill(read, config, inputs)
    steps = Steps(start, read.shape[1], bool(config.use_cache))
    found: dict[str, Any] = {}
    prefix = "decoder_" if is_pair else ""
    if config.output_attentions:
        found[f"{prefix}attentions"] = steps.cut(outputs.get(f"{prefix}attentions"), _square)
    if config.output_hidden_states:
        found[f"{prefix}hidden_states"] = steps.cut(outputs.get(f"{prefix}hidden_states"), _rows)
    if is_pair:
        found |= _of_encoder(inputs["encoder_outputs"], config)
        if config.output_attentions:
            found["cross_attentions"] = steps.cut(outputs.get("cross_attentions"), _wide)
    if config.use_cache:
        found["cache"] = next((outputs[name] for name in CACHES if outputs.get(name) is not None), None)
    return found


def named(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts, the cache by the name that it has in a class of outputs."""
    known = {field.name for field in fields(kind)}
    cache = next(name for name in CACHES if name in known)
    return {(cache if name == "cache" else name): part for name, part in parts.items()}


def _of_encoder(outputs: Mapping[str, Any], config: GenerationConfig) -> dict[str, Any]:
    asked = {"attentions": config.output_attentions, "hidden_states": config.output_hidden_states}
    return {f"encoder_{name}": outputs.get(name) for name, is_asked in asked.items() if is_asked}


def _square(attention: torch.Tensor, first: int, end: int) -> torch.Tensor:
    return attention[:, :, first:end, :end]


def _wide(attention: torch.Tensor, first: int, end: int) -> torch.Tensor:
    return attention[:, :, first:end]


def _rows(states: torch.Tensor, first: int, end: int) -> torch.Tensor:
    return states[:, first:end]
