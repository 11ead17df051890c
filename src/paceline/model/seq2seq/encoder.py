"""A source on its way into the cache: the encoder runs once, alone; its layers' keys and values go to pages.

They are a function of the source's tokens alone: no padding, no neighbours. A source stands in pages of its own, in
the memory of the decoder's layers: a page holds either a source's keys or a target's, never both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from paceline.engine.ports import Reading
from paceline.errors import ModelError
from paceline.model.interface import SilentStep, run_rows
from paceline.model.linears import num_embeddings
from paceline.model.pool import CachedSequence, PagePool, head_index
from paceline.model.prefix import PAGE_SIZE
from paceline.model.seq2seq.handing import Handed, Pair
from paceline.model.seq2seq.projections import Projection, projected, projections_of, watching
from paceline.text.source import not_followed


class Encoder:
    """Reads sources for one model into the pages of one pool."""

    def __init__(self, model: PreTrainedModel, pool: PagePool) -> None:
        self._model, self._pool = model, pool
        self._sample: list[Pair] = []
        self._projections: list[Projection] | None = None  # not known yet

    def read(self, source: CachedSequence, tokens: Sequence[int]) -> None:
        """Fill the pages of `source` with what the decoder's layers see of these tokens."""
        self._store(source, self._pairs(tokens))

    def read_sample(self, tokens: Sequence[int]) -> CachedSequence | None:
        """A source of the same few tokens each time, encoded once; None if no page is free."""
        source = self._pool.reserve(len(tokens))
        if source is not None:
            self._sample = self._sample or self._pairs(tokens)
            self._store(source, self._sample)
        return source

    def _pairs(self, tokens: Sequence[int]) -> list[Pair]:
        """Keys and values by the decoder's projections alone, once it is known which those are."""
        hidden = encoded(self._model, tokens)
        if self._projections is None:
            with watching(self._model.get_decoder(), hidden) as seen:
                pairs = source_pairs(self._model, hidden)
            self._projections = projections_of(pairs, seen)
            return pairs
        return projected(self._projections, hidden) if self._projections else source_pairs(self._model, hidden)

    def _store(self, source: CachedSequence, pairs: Sequence[Pair]) -> None:
        check_shapes(pairs, self._pool)
        source.length = pairs[0][0].shape[2]
        slots = source.slots(np.arange(source.length, dtype=np.int64))
        for layer, (keys, values) in zip(self._pool.layers, pairs, strict=True):
            index = head_index(slots, layer.shape.num_kv_heads, self._pool.device)
            layer.write(index, keys[0].transpose(0, 1), values[0].transpose(0, 1))


def reading_of(model: PreTrainedModel, max_length: int) -> Reading | None:
    """What a model reads beside its target's tokens, up to `max_length` of them; None if it reads nothing."""
    if not model.config.is_encoder_decoder:
        return None
    config, size = model.config, num_embeddings(model.get_encoder().get_input_embeddings())
    is_joint = getattr(config, "share_encoder_decoder_embeddings", True)  # Marian's, which may have two vocabularies
    return Reading(max_length, size, PAGE_SIZE, is_joint)


def note_on(model: PreTrainedModel) -> str:
    """What an encoder-decoder's `generate` would follow by itself, and decoding token by token does not."""
    return not_followed(model.generation_config) if model.config.is_encoder_decoder else ""


def encoded(model: PreTrainedModel, tokens: Sequence[int]) -> torch.Tensor:
    """(1, S, D) what the encoder says of a source."""
    ids = torch.tensor([list(tokens)], device=model.device)
    with torch.inference_mode():
        return model.get_encoder()(input_ids=ids).last_hidden_state  # type: ignore[no-any-return]


def source_pairs(model: PreTrainedModel, hidden: torch.Tensor) -> list[Pair]:
    """Keys and values of a source, a pair for each layer of the decoder, which is run over one row for them."""
    handed = Handed(model, hidden)
    with torch.inference_mode():
        run_rows(model.base_model, SilentStep(), [0], [0], handed)
    return handed.pairs


def check_shapes(pairs: Sequence[Pair], pool: PagePool) -> None:
    """Refuse a decoder whose layers keep a source in another shape than their own keys."""
    found = [(keys.shape[1], keys.shape[3], values.shape[3]) for keys, values in pairs]
    wanted = [(s.num_kv_heads, s.key_dim, s.value_dim) for s in (layer.shape for layer in pool.layers)]
    if found != wanted:
        raise ModelError(
            f"the decoder's layers keep keys of a source as {found} and their own as {wanted}; they have to be alike"
        )
