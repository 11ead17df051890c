"""Positions from outside, for decoders that count them from a cache; and what some add to scores by distance.

Such a decoder asks a module of its own for the vectors of the next so many positions. The rows of a tree stand
elsewhere, each at its own depth: the module is put behind a table of what it says of every position.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from paceline.errors import ModelError
from paceline.model.interface import is_running, positions


class PositionTable(nn.Module):
    """What a decoder's module says of each position, looked up where rows stand; elsewhere that module itself.

    `kept` (V, 1) is 0 for a token that stands nowhere (M2M's padding has no position), else 1; None if all stand.
    """

    def __init__(self, module: nn.Module, table: torch.Tensor, kept: torch.Tensor | None) -> None:
        super().__init__()
        self._module, self._table, self._kept = module, table, kept

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Vectors (1, R, D) of the rows' positions; what the module gives if no rows were placed."""
        if not is_running():
            return self._module(*args, **kwargs)  # type: ignore[no-any-return]
        vectors = functional.embedding(positions(), self._table)
        if self._kept is None:
            return vectors
        return vectors * functional.embedding(args[0], self._kept)


def place_from_outside(decoder: PreTrainedModel, num_positions: int, padding: int | None) -> None:
    """Have a decoder that counts positions by itself take them from outside; others stay as they are."""
    for part in decoder.modules():
        if getattr(part, "has_relative_attention_bias", False) and "compute_bias" not in vars(part):
            part.compute_bias = _ByDistance(part)
    module = getattr(decoder, "embed_positions", None)
    if not isinstance(module, nn.Module) or isinstance(module, PositionTable):
        return
    with torch.inference_mode(False), torch.no_grad():
        table, kept = _tabulated(decoder, module, num_positions, padding)
    decoder.embed_positions = PositionTable(module, table, kept)


class _ByDistance:
    """What a T5 attention adds to its scores: where rows were placed, a table that the attention looks up."""

    def __init__(self, part: nn.Module) -> None:
        self._compute: Callable[..., torch.Tensor] = part.compute_bias  # type: ignore[assignment]
        last = int(part.relative_attention_max_distance)  # type: ignore[arg-type]  # beyond it all distances are one
        with torch.inference_mode(False), torch.no_grad():
            found = self._compute(1, last + 1, past_seen_tokens=last)[0, :, 0].flip(-1)
        self._table = found.float().contiguous()
        self._table.is_by_distance = True  # type: ignore[attr-defined]  # told from a bias of another shape by this

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self._table if is_running() else self._compute(*args, **kwargs)


def _tabulated(
    decoder: PreTrainedModel, module: nn.Module, num_positions: int, padding: int | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    embeddings = decoder.get_input_embeddings()
    like = next(embeddings.parameters())
    ids = torch.full((1, num_positions), (1 if padding == 0 else 0), device=like.device)
    table = _asked(module, ids, like)
    if padding is None:
        return table, None
    padded = _asked(module, torch.full((1, 1), padding, device=like.device), like)
    if torch.equal(padded, table[:1]):
        return table, None
    kept = table.new_ones(embeddings.num_embeddings, 1)
    kept[padding] = 0.0
    return table, kept


def _asked(module: nn.Module, ids: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N, D) what the module says of tokens (1, N) at the start: some are given their shape, or vectors, alone."""
    for given in (ids, ids.shape, like.new_zeros(*ids.shape, like.shape[1])):
        with suppress(ValueError, AttributeError):
            vectors = module(given)
            if vectors.is_floating_point():
                return vectors.reshape(ids.shape[1], -1).detach().clone()  # type: ignore[no-any-return]
    raise ModelError(f"{type(module).__name__} does not say which vectors it gives to positions")
