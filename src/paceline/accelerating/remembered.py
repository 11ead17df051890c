"""Caches that accelerated calls have returned, and the texts in them: who brings one back goes on with its text."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch

from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.watching import version_of


@dataclass(frozen=True)
class Memory:
    """What a cache holds: token ids (B, T), which of them are read, and what its tensors were then."""

    of: weakref.ref[Any]
    ids: torch.Tensor
    mask: torch.Tensor
    state: Hashable


class Remembered:
    """Caches by identity, as long as they are there and nobody has changed them."""

    def __init__(self) -> None:
        self._known: dict[int, Memory] = {}

    def note(self, cache: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Remember what a cache holds; one that cannot be told from itself after a change is not remembered."""
        state = _state(cache)
        if state is not None:
            key = id(cache)
            gone = weakref.ref(cache, lambda _: self._known.pop(key, None))
            self._known[key] = Memory(gone, ids, torch.ones_like(ids) if mask is None else mask, state)

    def is_known(self, cache: Any) -> bool:
        """Whether it is one of these, as it was."""
        memory = self._known.get(id(cache))
        return memory is not None and memory.of() is cache and memory.state == _state(cache)

    def check(self, cache: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> None:
        """See that a text begins with what a known cache holds.

        Raises:
            HandOver: it begins otherwise, or its beginning was left out.
        """
        memory = self._known[id(cache)]
        length = memory.ids.shape[1]
        begins = (ids[:, :length], (torch.ones_like(ids) if mask is None else mask)[:, :length])
        if ids.shape[1] <= length or not all(map(torch.equal, begins, (memory.ids, memory.mask))):
            raise HandOver("cache", "the prompt does not begin with the text that it holds")


def _state(cache: Any) -> Hashable | None:
    """What a change of a cache's tensors changes; None where a layer keeps no keys."""
    layers = getattr(cache, "layers", None)
    keys: list[Any] = [getattr(layer, "keys", None) for layer in layers or ()]
    if not keys or not all(isinstance(key, torch.Tensor) for key in keys):
        return None
    return tuple((id(key), key.data_ptr(), version_of(key), tuple(key.shape)) for key in keys)
