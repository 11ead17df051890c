"""What a decoder is handed in place of its encoder's output: a cache that says it has the source's keys already.

transformers' cross-attention takes keys and values from the cache once that has them. So nothing of the source is
computed again, and whoever attends to the tensor that was handed out attends to the source: that is how a call of the
registered attention is known to be cross-attention, whatever the model calls its modules.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

import torch
from transformers import EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values, (1, H_kv, S, D) each


class _Everywhere:
    """The same layer at every index."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.keys = self.values = tensor

    def __getitem__(self, index: int) -> _Everywhere:
        return self


class _Own:
    """The cache of a decoder's own keys: it hands them on, since they are stored by the attention."""

    is_sliding = is_linear = is_dummy = ()  # what masks ask of its layers: there are none

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Pair:
        return keys, values

    def get_seq_length(self, *args: Any) -> int:
        return 0


class _Source:
    """The cache of a source's keys: it hands out what stands for them, and keeps what it is given."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.layers = _Everywhere(tensor)
        self.pairs: list[Pair] = []

    def update(self, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Pair:
        self.pairs.append((keys, values))
        return self.layers.keys, self.layers.values

    def get_seq_length(self, *args: Any) -> int:
        return 1


class _Updated(dict[int, bool]):
    """Says of every layer whether the cache has its keys."""

    def __init__(self, is_updated: bool) -> None:
        super().__init__()
        self._is_updated = is_updated

    def get(self, layer: int, default: Any = None) -> Any:
        return self._is_updated


class _Cache(EncoderDecoderCache):  # type: ignore[misc]
    def __init__(self, tensor: torch.Tensor, has_source: bool) -> None:
        self.self_attention_cache, self.cross_attention_cache = _Own(), _Source(tensor)
        self.is_updated = _Updated(has_source)

    def get_seq_length(self, *args: Any) -> int:
        return 0


class Handed:
    """The inputs of one forward of a decoder, apart from its tokens.

    Args:
        model: an encoder-decoder.
        hidden: (1, S, D) what its encoder said; None where the source's keys are stored already.
    """

    def __init__(self, model: PreTrainedModel, hidden: torch.Tensor | None = None) -> None:
        self.keys = torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device)
        known = inspect.signature(model.forward).parameters
        self._name = "cache" if "cache" in known else "past_key_values"
        # Some hand all that begins so on to a decoder that stands alone.
        self._takes_positions = "decoder_position_ids" in known or "position_ids" in _decoder_arguments(model)
        self._cache = _Cache(self.keys, hidden is None)
        width = model.get_encoder().config.hidden_size
        self._hidden = self.keys.new_zeros(1, 1, width) if hidden is None else hidden

    @property
    def pairs(self) -> list[Pair]:
        """Keys and values of the source as the layers have computed them, in the order of their calls."""
        return self._cache.cross_attention_cache.pairs

    def inputs(self, tokens: torch.Tensor, places: torch.Tensor) -> dict[str, Any]:
        """The arguments of a forward of the decoder over `tokens` (1, R), which stand at `places` (1, R)."""
        positions = {"decoder_position_ids": places} if self._takes_positions else {}
        return {
            **positions,
            "decoder_input_ids": tokens,
            "encoder_outputs": BaseModelOutput(self._hidden),
            self._name: self._cache,
            "use_cache": True,  # else some give their layers no cache
        }


def _decoder_arguments(model: PreTrainedModel) -> Collection[str]:
    return inspect.signature(model.get_decoder().forward).parameters


def input_embeddings(model: PreTrainedModel) -> torch.nn.Module:
    """What embeds the tokens that a model goes on with."""
    part = model.get_decoder() if model.config.is_encoder_decoder else model
    return part.get_input_embeddings()  # type: ignore[no-any-return]


def handed_to(model: PreTrainedModel) -> Handed | None:
    """What a model that reads a source is handed in its place; None for one that reads none."""
    return Handed(model) if model.config.is_encoder_decoder else None


def is_handed(handed: Handed | None, keys: torch.Tensor) -> bool:
    """Whether these keys stand for the source."""
    return handed is not None and keys.untyped_storage().data_ptr() == handed.keys.untyped_storage().data_ptr()
