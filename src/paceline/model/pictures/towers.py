"""The towers of a model: they see pictures by its own code and its own attention, one picture at a time."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.model.pictures.prompt import Features, Placed, SeenPrompt
from paceline.text.processor import PicturedIds


class Towers:
    """What a model sees pictures by."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        if not has_towers(model):
            raise ModelError(f"{type(model).__name__} has no features of pictures that take the place of tokens")
        self.token_id = _token_id(model)
        self.has_blocks = False  # pieces of a picture see each other
        self._number = getattr(sys.modules[type(model).__module__], "get_block_sequence_ids_for_mask", None)

    @property
    def ways(self) -> tuple[bool, ...]:
        """What `has_blocks` may be."""
        return (False,) if self._number is None else (False, True)

    def see(self, given: PicturedIds) -> SeenPrompt:
        """A prompt with its pictures, whose features are still to be made."""
        return SeenPrompt(given, self.token_id, self._placed(given))

    def _placed(self, given: PicturedIds) -> Placed:
        """Rotary positions, by the model's own code where it gives tokens of pictures others than their places."""
        base, blocks = self.model.base_model, self._blocks(given.beside)
        if not hasattr(base, "get_rope_index"):
            return Placed(np.arange(len(given.ids))[None], 0, blocks)
        known = inspect.signature(base.get_rope_index).parameters
        positions, offset = base.get_rope_index(**{name: given.beside[name] for name in known if name in given.beside})
        return Placed(positions[:, 0].numpy().astype(np.int64), int(offset), blocks)

    def _blocks(self, beside: Mapping[str, Any]) -> tuple[range, ...]:
        """Places whose tokens see each other, by the model's own code."""
        kinds = beside.get("token_type_ids", beside.get("mm_token_type_ids"))
        if not self.has_blocks or self._number is None or kinds is None:
            return ()
        numbers = self._number(kinds, device=kinds.device)[0].tolist()
        numbered = itertools.groupby(enumerate(numbers), key=lambda one: one[1])
        runs = [[place for place, _ in run] for block, run in numbered if block >= 0]
        return tuple(range(run[0], run[-1] + 1) for run in runs)

    @torch.inference_mode()
    def features(self, prompt: SeenPrompt) -> Features:
        """The features of a prompt's pictures, made when they are first asked for."""
        if prompt.features is None:
            self._keep_attention()
            each = [self._features(picture.inputs) for picture in prompt.pictures]
            layers = zip(*(one.by_layer for one in each), strict=True)
            prompt.features = Features(
                torch.cat([one.embeddings for one in each]), tuple(torch.cat(parts) for parts in layers)
            )
        return prompt.features

    def _features(self, inputs: Mapping[str, Any]) -> Features:
        call = _call(self.model)
        found = call(**{name: self._moved(value) for name, value in _known_to(call, inputs)}, return_dict=True)
        by_layer = getattr(found, "deepstack_features", None) or ()
        return Features(self._rows(found.pooler_output), tuple(self._rows(part) for part in by_layer))

    def _rows(self, parts: Any) -> torch.Tensor:
        """(n, D) in the model's dtype, of one tensor or of one for each picture."""
        whole = parts if isinstance(parts, torch.Tensor) else torch.cat(list(parts))
        return whole.reshape(-1, whole.shape[-1]).to(self.model.device, self.model.dtype)

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)

    def _keep_attention(self) -> None:
        """Towers have an attention of their own: what they mix is no path of a sequence."""
        own = "sdpa" if self.model._supports_sdpa else "eager"
        for config in _tower_configs(self.model):
            config._attn_implementation = own


def has_towers(model: PreTrainedModel) -> bool:
    """True if a model makes features of pictures, and one of its tokens stands for them."""
    return _call(model) is not None and isinstance(_token_id(model), int)


def _call(model: PreTrainedModel) -> Any:
    """What makes features, of the model or of what is under its head."""
    return getattr(model, "get_image_features", getattr(model.base_model, "get_image_features", None))


def _token_id(model: PreTrainedModel) -> Any:
    return getattr(model.config, "image_token_id", getattr(model.config, "image_token_index", None))


def _known_to(call: Callable[..., Any], inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    known = inspect.signature(call).parameters
    return ((name, value) for name, value in inputs.items() if name in known)


def _tower_configs(model: PreTrainedModel) -> list[Any]:
    """The configurations of what is no part of the language model."""
    decoder: nn.Module = model.get_decoder()
    text = {id(module.config) for module in (model, *decoder.modules()) if hasattr(module, "config")}
    found = {id(m.config): m.config for m in model.modules() if hasattr(m, "config") and id(m.config) not in text}
    return list(found.values())
