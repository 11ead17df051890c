"""Sparse attention by an indexer: a row scores all keys that it sees by other, smaller ones, and attends to the best.

The choice is a function of the row's path alone. Scores are sums in one order, made tile by tile as attention makes
its own; of keys with equal scores the earlier positions are picked. Source: DeepSeek-V3.2 (arXiv 2512.02556).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from paceline.model.pool import LayerCache
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TAIL, Rows


class Biases(NamedTuple):
    """0 where a row picked the position, else -inf: what attention adds to the scores of its parts."""

    tail: torch.Tensor  # (N, 1, g, 1, 128)
    shared: torch.Tensor | None  # (blocks * tiles, 1, rows, 1, 64)


@dataclass(eq=False)
class Picks:
    """What rows pick keys by: the sum over heads of `weights` times relu(`scaling` * query . key); the best `most`.

    Layers may share it: what was picked is kept.
    """

    query: torch.Tensor  # (R, H, D)
    key: torch.Tensor  # (R, 1, D)
    weights: torch.Tensor  # (R, H)
    scaling: float
    most: int
    biases: Biases | None = field(default=None, repr=False)


def biases_of(picks: Picks, cache: LayerCache, rows: Rows) -> Biases:
    """What each row picks; the rows' own keys are in the cache already."""
    tail = _tail_scores(picks, cache, rows) + rows.tail_bias(0).reshape(len(rows), TAIL)
    shared = rows.shared(0)
    if shared is None:
        return Biases(_as_tail(_picked(tail, picks.most), rows), None)
    before = _shared_scores(picks, cache, rows)  # (R, tiles * 64)
    picked = _picked(torch.cat([before, tail], 1), picks.most)
    blocked = picked[:, :-TAIL].index_select(0, rows.block_index())
    blocks, block = rows.blocks.shape
    split = blocked.view(blocks, block, shared.num_tiles, PAGE_SIZE).transpose(1, 2)
    return Biases(_as_tail(picked[:, -TAIL:], rows), split.reshape(-1, 1, block, 1, PAGE_SIZE))


def _picked(scores: torch.Tensor, most: int) -> torch.Tensor:
    """Scores (R, T) in the order of positions as biases."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :most]
    return torch.full_like(scores, -torch.inf).scatter_(1, order, 0.0)


def _as_tail(bias: torch.Tensor, rows: Rows) -> torch.Tensor:
    return bias.view(-1, 1, rows.rows_per_group, 1, TAIL)


def _tail_scores(picks: Picks, cache: LayerCache, rows: Rows) -> torch.Tensor:
    """(R, 128)."""
    keys, _ = cache.read(rows.tail_index(1))
    num_rows, heads, dim = picks.query.shape
    query = picks.query.float().reshape(num_rows // rows.rows_per_group, -1, dim)
    scores = _products(query, keys.view(-1, TAIL, dim)).view(num_rows, heads, TAIL)
    return _added_up(scores, picks)


def _shared_scores(picks: Picks, cache: LayerCache, rows: Rows) -> torch.Tensor:
    """(R, tiles * 64), -inf where a row has no such tile."""
    shared = rows.shared(0)
    assert shared is not None
    keys, _ = cache.read_pages(shared.pages)
    heads, dim = picks.query.shape[1:]
    blocks, block = rows.blocks.shape
    query = picks.query.float().index_select(0, rows.block_index()).view(blocks, 1, block * heads, dim)
    query = query.expand(-1, shared.num_tiles, -1, -1).reshape(-1, block * heads, dim)
    scores = _products(query, keys.view(-1, PAGE_SIZE, dim)).view(blocks, shared.num_tiles, block, heads, PAGE_SIZE)
    by_row = scores.permute(0, 2, 3, 1, 4).reshape(blocks * block, heads, -1).index_select(0, rows.place_index())
    seen = shared.bias.expand(blocks, shared.num_tiles, block, PAGE_SIZE).transpose(1, 2).reshape(blocks * block, -1)
    return _added_up(by_row, picks) + seen.index_select(0, rows.place_index())


def _products(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Batched; one is given as two, as in attention.py."""
    transposed = keys.transpose(1, 2)
    if len(query) > 1:
        return torch.bmm(query, transposed)
    return torch.bmm(query.expand(2, -1, -1), transposed.expand(2, -1, -1))[:1]


def _added_up(scores: torch.Tensor, picks: Picks) -> torch.Tensor:
    """(R, T) of the heads' scores (R, H, T), head by head."""
    weighted = torch.relu(scores * picks.scaling) * picks.weights.float().unsqueeze(-1)
    total = weighted[:, 0]
    for head in range(1, scores.shape[1]):
        total = total + weighted[:, head]
    return total
