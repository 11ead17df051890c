"""Has a model's layers call another attention, in all of its configurations; an encoder keeps its own."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from paceline.model.seq2seq.positions import place_from_outside


def attend_by(model: PreTrainedModel, attention: str) -> None:
    """Have the layers of `model` call `attention`, a name that transformers knows.

    Those of an encoder run transformers' eager attention in any case, and its decoder takes positions from outside.
    """
    model.config._attn_implementation = attention
    if not model.config.is_encoder_decoder:
        return
    encoder, decoder = model.get_encoder(), model.get_decoder()
    _give_own_config(encoder)
    for config in _configs(decoder):
        config._attn_implementation = attention
    place_from_outside(decoder, max_target_length(model), model.config.pad_token_id)


def max_target_length(model: PreTrainedModel) -> int:
    """Positions that a decoder has; of one whose attention knows distances alone, as many as are sensible."""
    return _limit(model, "max_target_positions", "max_decoder_position_embeddings", "max_position_embeddings")


def max_source_length(model: PreTrainedModel) -> int:
    """Tokens that an encoder reads at most."""
    return _limit(model, "max_source_positions", "max_encoder_position_embeddings", "max_position_embeddings")


_NO_LIMIT = 8192  # of relative positions; a source is read at once, in time and memory that grow by its square


def _limit(model: PreTrainedModel, *names: str) -> int:
    return next((int(v) for v in (getattr(model.config, name, None) for name in names) if v), _NO_LIMIT)


def _give_own_config(encoder: nn.Module) -> None:
    """Some encoders share their configuration with the decoder: then one attention would be both's."""
    own: dict[int, Any] = {}
    for module in encoder.modules():
        config = getattr(module, "config", None)
        if config is not None:
            if id(config) not in own:
                own[id(config)] = copy.deepcopy(config)
                own[id(config)]._attn_implementation = "eager"
            module.config = own[id(config)]


def _configs(decoder: nn.Module) -> list[Any]:
    found = {id(module.config): module.config for module in decoder.modules() if hasattr(module, "config")}
    return list(found.values())
