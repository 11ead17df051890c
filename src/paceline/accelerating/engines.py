"""The `LLM` behind an accelerated model, loaded anew when the model's weights are others."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, TypedDict

from paceline.accelerating.embedded import Embedded
from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.remembered import Remembered
from paceline.accelerating.watching import state_of
from paceline.errors import ModelError
from paceline.llm import LLM
from paceline.options import Drafters

if TYPE_CHECKING:
    import os

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from paceline.heads.block import BlockHead


class EngineOptions(TypedDict, total=False):
    """Options of `accelerate`: those of `LLM` that a loaded model leaves open."""

    tokenizer: str | PreTrainedTokenizerBase | None
    drafters: Drafters
    draft_model: str | PreTrainedModel | None
    head: str | os.PathLike[str] | BlockHead | None
    cache_tokens: int | None
    max_slowdown: float
    num_speculative_tokens: int | None


class Engines:
    """One `LLM` for a model as it is; threads may share it."""

    def __init__(self, model: PreTrainedModel, options: EngineOptions) -> None:
        self._model, self._options = weakref.ref(model), options
        self._lock = threading.Lock()
        self._state = state_of(model)
        self._llm: LLM | None = LLM(model, **options)
        self.remembered = Remembered()
        self._embedded: Embedded | None = None

    def current(self) -> LLM:
        """The `LLM` of the weights that the model has now.

        Raises:
            HandOver: as it is now it cannot be decoded exactly.
        """
        model: Any = self._model()
        with self._lock:
            state = state_of(model)
            if state != self._state or self._llm is None:
                self._forget()
                self._llm, self._state = _loaded(model, self._options), state
            return self._llm

    def embedded(self) -> Embedded:
        """The tokens of the model by their embeddings; read at the first call that needs them."""
        model: Any = self._model()
        with self._lock:
            if self._embedded is None:
                self._embedded = Embedded(model)
            return self._embedded

    def close(self) -> None:
        """Free what decodes."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._llm is not None:
            self._llm.close()
        self._llm, self._embedded, self.remembered = None, None, Remembered()


def _loaded(model: PreTrainedModel, options: EngineOptions) -> LLM:
    try:
        return LLM(model, **options)
    except ModelError as error:
        raise HandOver("a model that has changed", str(error)) from error
