"""One forward as a contender: Paceline's and stock transformers', at the same context, for the same tokens.

Both end with float32 logits of every row on the host, so that neither leaves work or waiting to the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from inspect import signature
from typing import Any, Protocol

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from paceline.bench.timing import Contender
from paceline.errors import ConfigError
from paceline.model.decoder import Decoder
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TreeWork

_CACHE = "cache"  # what transformers renamed `past_key_values` to in 5.24
_PART = 512  # tokens of a context that are read at once: scores of all with all would not fit


class TimedForward(Protocol):
    """Forwards over one cached context, which is the same again after each."""

    def contender(self, name: str, rows: int) -> Contender:
        """A forward of `rows` rows."""


class PacelineForward:
    """Forwards over one cached context. Nothing is committed, so each forward finds the same cache."""

    def __init__(self, decoder: Decoder, context: Sequence[int]) -> None:
        self._decoder = decoder
        self._context = list(context)
        sequence = decoder.pool.reserve(len(context) + PAGE_SIZE)
        if sequence is None:
            raise ConfigError(f"context is {len(context)}; allowed here: {decoder.pool.num_free_tokens - PAGE_SIZE}")
        self._sequence = sequence
        decoder.prefill(sequence, self._context)

    def padded(self, rows: int) -> int | None:
        """The row count that `rows` rows are padded to; None if they do not fit into one forward."""
        counts = self._decoder.row_counts
        fits = rows <= min(counts[-1], PAGE_SIZE)
        return counts[bisect_left(counts, rows)] if fits else None

    def contender(self, name: str, rows: int) -> Contender:
        """A forward of a chain of `rows` rows."""
        tokens = [self._context[i % len(self._context)] for i in range(rows)]
        work = [TreeWork(self._sequence, tokens, list(range(-1, rows - 1)))]
        return Contender(name, lambda: self._decoder.forward(work))

    def close(self) -> None:
        """Give the pages back."""
        self._decoder.pool.release(self._sequence)


class TransformersForward:
    """Forwards of a stock model over a `DynamicCache`, cropped back after each."""

    def __init__(self, model: PreTrainedModel, context: Sequence[int]) -> None:
        self._model = model
        self._context = list(context)
        self._cache = DynamicCache(config=model.config)
        parameters = signature(model.forward).parameters
        self._keyword = _CACHE if _CACHE in parameters else "past_key_values"
        last_alone = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        for start in range(0, len(self._context), _PART):
            self._run(self._context[start : start + _PART], **last_alone)

    def contender(self, name: str, rows: int) -> Contender:
        """A forward of `rows` rows."""
        tokens = [self._context[i % len(self._context)] for i in range(rows)]
        return Contender(name, lambda: self._run(tokens), lambda: self._forget(rows))

    def _forget(self, rows: int) -> None:
        """Cut keys and values back. A state of a recurrent layer stays: its forward takes as long whatever it holds."""
        for layer in self._cache.layers:
            if isinstance(layer, DynamicLayer):
                layer.crop(-rows)

    @torch.inference_mode()
    def _run(self, tokens: Sequence[int], **how: Any) -> torch.Tensor:
        ids = torch.tensor([tokens], device=self._model.device)
        out = self._model(input_ids=ids, use_cache=True, **{self._keyword: self._cache}, **how)
        return out.logits[0].float().cpu()  # type: ignore[no-any-return]
