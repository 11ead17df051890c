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
from paceline.model.picking import Biases
from paceline.model.pool import LayerCache, PagePool
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TAIL, Rows, TreeWork, first_seen

_ROWS = 16  # of every forward, so that their number makes no difference


def slot_order_target(target: HFTarget, cache_tokens: int) -> HFTarget:
    """A target over the same weights that attends in slot order, with a cache of its own."""
    return target_with(_SlotOrderForward, target, cache_tokens, "attention in slot order")


def first_page_target(target: HFTarget, cache_tokens: int) -> HFTarget:
    """A target over the same weights that knows a sequence by its first page, with a cache of its own."""
    return target_with(_FirstPageForward, target, cache_tokens, "sequences known by their first page")


def target_with(kind: type[ModuleForward], target: HFTarget, cache_tokens: int, name: str) -> HFTarget:
    """A target over the same weights that runs another way, with a cache of its own."""
    own, pool = target.decoder, another_pool(target, cache_tokens)
    forward = kind(own.model, pool, target.max_length - 1)
    rows = min(_ROWS, max(own.row_counts))
    assert rows in ROW_COUNTS or rows in own.row_counts
    decoder = Decoder(own.model, pool, (rows,), target.max_length, forward)
    return HFTarget(decoder, target.vocab_size, target.max_length, name, target.reads)


def another_pool(target: HFTarget, cache_tokens: int) -> PagePool:
    """An empty cache for the layers of a target."""
    own = target.decoder
    shapes = [layer.shape for layer in own.pool.layers]
    num_pages = -(-(cache_tokens + SCRATCH) // PAGE_SIZE) + 2
    states = None if own.pool.states is None else own.pool.states.another(_ROWS)
    return PagePool(shapes, num_pages, own.model.dtype, own.pool.device, states)


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
        self._ahead: dict[int, torch.Tensor] = {}  # by what is seen, where nothing is picked

    def _attended(
        self,
        query: torch.Tensor,
        layer: LayerCache,
        *,
        window: int = 0,
        chunk: int = 0,
        picked: Biases | None = None,
        **how: Any,
    ) -> torch.Tensor:
        """See `PoolStep`."""
        seen, num_slots = -chunk if chunk else window, len(layer.keys) * PAGE_SIZE
        if picked is not None:
            return _masked_attention(query, layer, _ahead(self._rows, num_slots, seen, picked), **how)
        if seen not in self._ahead:
            self._ahead[seen] = _ahead(self._rows, num_slots, seen)
        return _masked_attention(query, layer, self._ahead[seen], **how)


def _ahead(rows: Rows, num_slots: int, seen: int, picked: Biases | None = None) -> torch.Tensor:
    """(R, slots), how far before its row the position stored at a slot is; -1 where the row does not see it."""
    ahead = np.full((len(rows), num_slots), -1, np.int64)
    bias = rows.tail_bias(seen) if picked is None else rows.tail_bias(seen) + picked.tail
    tails = (bias == 0).reshape(-1, TAIL).cpu().numpy()
    for row, place in enumerate(rows.places):
        group, position = row // rows.rows_per_group, int(rows.positions[row])
        first = (int(rows.tiles[group]) - 1) * PAGE_SIZE  # of the tail
        block, number = divmod(int(place), rows.blocks.shape[1])
        earlier = np.arange(max(first, 0))
        if picked is not None and picked.shared is not None:
            among = picked.shared.view(len(rows.blocks), -1, rows.blocks.shape[1], PAGE_SIZE)[block, :, number]
            earlier = earlier[(among.reshape(-1)[: len(earlier)] == 0).cpu().numpy()]
        earlier = earlier[earlier >= first_seen(rows.positions[row : row + 1], seen)]
        pages = rows.block_pages[block]
        ahead[row, pages[earlier // PAGE_SIZE] * PAGE_SIZE + earlier % PAGE_SIZE] = position - earlier
        ahead[row, rows.tail_slots[group][tails[row]]] = position - (first + np.arange(TAIL)[tails[row]])
    return torch.from_numpy(ahead).to(rows.device)


def _masked_attention(
    query: torch.Tensor,
    layer: LayerCache,
    ahead: torch.Tensor,
    scaling: float,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    distances: torch.Tensor | None = None,
) -> torch.Tensor:
    """(R, H, D_v) float32 of queries (R, H, D); the rest as in `batch_invariant_attention`."""
    group = query.shape[1] // layer.shape.num_kv_heads
    keys, values = (t.transpose(0, 1).flatten(1, 2).float() for t in (layer.keys, layer.values))  # (H_kv, slots, D)
    heads = query.float().transpose(0, 1).reshape(len(keys), group, len(query), -1)  # (H_kv, G, R, D)
    scores = heads @ keys.transpose(1, 2)[:, None] * scaling
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    if slopes is not None:
        scores = scores - slopes.view(len(keys), group, 1, 1) * ahead
    if distances is not None:
        scores = scores + distances[:, ahead.clamp(0, distances.shape[1] - 1)].view(scores.shape)
    scores = scores.masked_fill(ahead < 0, -torch.inf)
    if sinks is not None:  # keys without values
        ends = sinks.float().view(len(keys), group, 1, 1).expand(-1, -1, len(query), -1)
        scores, values = torch.cat([scores, ends], -1), torch.cat([values, torch.zeros_like(values[:, :1])], 1)
    weights = torch.softmax(scores, -1)
    return (weights @ values[:, None]).flatten(0, 1).transpose(0, 1)
