"""Attention over all rows of a batch at once, by a mask, in PyTorch's operations: to try heads, not to draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from paceline.model.interface import SilentStep

KeysAndValues = tuple[torch.Tensor, torch.Tensor]  # (K, H_kv, D), (K, H_kv, D_v)


class DenseStep(SilentStep):
    """Answers layers, each over what came before it and the rows themselves: see `ForwardStep`.

    `distances` (R, K) is how far before its row each key is, negative where the row does not see it. `before` is what
    each layer sees ahead of the rows' own keys, among the K.
    """

    def __init__(self, distances: torch.Tensor, before: Sequence[KeysAndValues] = ()) -> None:
        self._distances, self._before = distances, before
        self.kept: list[KeysAndValues] = []  # by layer: what was before and the rows' own

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **how: Any) -> torch.Tensor:
        """(R, H, D_v)."""
        if self._before:
            keys, values = self._before[len(self.kept)]
            key, value = torch.cat([keys, key]), torch.cat([values, value])
        self.kept.append((key, value))
        repeats = query.shape[1] // key.shape[1]
        keys, values = (t.float().repeat_interleave(repeats, 1) for t in (key, value))
        scores = torch.einsum("rhd,khd->hrk", query.float() * how["scaling"], keys)
        hidden = self._distances < 0
        if how.get("window"):
            hidden = hidden | (self._distances >= how["window"])
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return torch.einsum("hrk,khd->rhd", weights, values).to(query.dtype)


def causal(texts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Distances (R, R) among rows of several texts: each sees itself and what stands before it in its own."""
    ahead = places[:, None] - places[None, :]
    return torch.where((texts[:, None] == texts[None, :]) & (ahead >= 0), ahead, -1)
