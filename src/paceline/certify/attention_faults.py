"""Targets with a fault each in how rows attend; all else is the target's own: weights, linears, positions.

Attention in slot order is correct and common: masked, it adds up keys in the order of their slots. A draft tree's rows
lie in the cache in the tree's order, so a row's sum runs over other places than in plain decoding: it rounds otherwise.
A sequence known by its first page is wrong where two begin alike and then part: one attends to the other's keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from paceline.model.decoder import Decoder
from paceline.model.forward import ROW_COUNTS, ModuleForward, PoolStep
from paceline.model.hf import SCRATCH, HFTarget
from paceline.model.pool import LayerCache, PagePool
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TAIL, Rows, TreeWork

_ROWS = 16  # of every forward, so that their number makes no difference


def slot_order_target(target: HFTarget, cache_tokens: int) -> HFTarget:
    """A target over the same weights that attends in slot order, with a cache of its own."""
    return target_with(_SlotOrderForward, target, cache_tokens, "attention in slot order")


def first_page_target(target: HFTarget, cache_tokens: int) -> HFTarget:
    """A target over the same weights that knows a sequence by its first page, with a cache of its own."""
    return target_with(_FirstPageForward, target, cache_tokens, "sequences known by their first page")


def target_with(kind: type[ModuleForward], target: HFTarget, cache_tokens: int, name: str) -> HFTarget:
    """A target over the same weights that runs another way, with a cache of its own."""
    own = target.decoder
    shapes = [layer.shape for layer in own.pool.layers]
    num_pages = -(-(cache_tokens + SCRATCH) // PAGE_SIZE) + 2
    states = None if own.pool.states is None else own.pool.states.another(_ROWS)
    pool = PagePool(shapes, num_pages, own.model.dtype, own.pool.device, states)
    forward = kind(own.model, pool, target.max_length - 1)
    rows = min(_ROWS, max(own.row_counts))
    assert rows in ROW_COUNTS or rows in own.row_counts
    decoder = Decoder(own.model, pool, (rows,), target.max_length, forward)
    return HFTarget(decoder, target.vocab_size, target.max_length, name, target.reads)


class _FirstPageForward(ModuleForward):
    """The model's own modules over rows that read the pages of whoever has the same first page and tile."""

    def logits(self, work: Sequence[TreeWork], num_rows: int) -> torch.Tensor:
        """See `Forward`."""
        rows = self._tree_rows(work, num_rows)
        first: dict[tuple[int, int], Any] = {}
        keys = [(int(pages[0]), int(tile)) for pages, tile in zip(rows.block_pages, rows.block_tiles, strict=True)]
        tables = [first.setdefault(key, pages) for key, pages in zip(keys, rows.block_pages, strict=True)]
        return self._run(self._model, replace(rows, block_pages=tables))


class _SlotOrderForward(ModuleForward):
    """The model's own modules with this attention."""

    def _step(self, rows: Rows) -> _SlotOrderStep:
        return _SlotOrderStep(self._pool, rows)


class _SlotOrderStep(PoolStep):
    """One forward: stores each layer's keys and values, then attends over all slots under a mask."""

    def __init__(self, pool: PagePool, rows: Rows) -> None:
        super().__init__(pool, rows)
        self._masks: dict[int, torch.Tensor] = {}

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int = 0, **how: Any
    ) -> torch.Tensor:
        """See `ForwardStep`."""
        layer = next(self._layers)
        layer.write(self._rows.write_index(layer.shape.num_kv_heads), key, value)
        if window not in self._masks:
            self._masks[window] = _visible(self._rows, len(layer.keys) * PAGE_SIZE, window)
        return _masked_attention(query, layer, self._masks[window], **how).to(query.dtype)


def _visible(rows: Rows, num_slots: int, window: int) -> torch.Tensor:
    """(R, slots), whether a row sees what is stored at a slot."""
    mask = torch.zeros(len(rows), num_slots, dtype=torch.bool)
    tails = (rows.tail_bias(window) == 0).reshape(-1, TAIL).cpu().numpy()
    for row, place in enumerate(rows.places):
        group = row // rows.rows_per_group
        pages = rows.block_pages[place // rows.blocks.shape[1]]
        earlier = np.arange(max(int(rows.tiles[group]) - 1, 0) * PAGE_SIZE)
        if window:
            earlier = earlier[earlier > rows.positions[row] - window]
        mask[row, pages[earlier // PAGE_SIZE] * PAGE_SIZE + earlier % PAGE_SIZE] = True
        mask[row, rows.tail_slots[group][tails[row]]] = True
    return mask.to(rows.device)


def _masked_attention(
    query: torch.Tensor,
    layer: LayerCache,
    mask: torch.Tensor,
    scaling: float,
    softcap: float = 0.0,
) -> torch.Tensor:
    """(R, H, D_v) float32 of queries (R, H, D)."""
    group = query.shape[1] // layer.shape.num_kv_heads
    keys, values = (t.transpose(0, 1).flatten(1, 2).float() for t in (layer.keys, layer.values))  # (H_kv, slots, D)
    heads = query.float().transpose(0, 1).reshape(len(keys), group, len(query), -1)  # (H_kv, G, R, D)
    scores = heads @ keys.transpose(1, 2)[:, None] * scaling
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, -1)
    return (weights @ values[:, None]).flatten(0, 1).transpose(0, 1)
