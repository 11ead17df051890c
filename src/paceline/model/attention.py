"""Batch-invariant attention: bits that depend on a row's own path, not on the tree, batch or cache around it.

A masked attention over a draft tree adds up the keys in slot order, so its rounding differs from plain
decoding's. Here the arithmetic of a row at position `p` is a function of `p` and of the keys on its path:

- Positions are cut into tiles of 64; tile `j` holds positions [64 j, 64 j + 64).
- The *tail*, tiles `j(p) - 1` and `j(p)`, is gathered in path order, 128 keys per row whatever is drafted. A
  draft is at most 64 deep, so every uncommitted key of a row lies in its tail.
- Earlier tiles are whole, committed pages. Rows of one sequence read them together, in blocks of fixed size.
- Each tile gives its maximum, its sum of exponentials and its weighted values. Tiles are combined by the
  log-sum-exp rule (as in FlashAttention, arXiv 2205.14135), added pairwise along the tile index: tiles that
  are absent at the end add exact zeros and change nothing.

Every matrix product has a fixed shape per head; only how many there are varies. Prefill uses the same function
with groups and blocks of 64 rows. Whether the library's products keep their bits is probed at load (probe.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from paceline.model.picking import Biases
from paceline.model.pool import LayerCache
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TAIL, Rows, Shared

Added = Callable[[torch.Tensor], torch.Tensor]  # by distances (..., 1, T): what is added to scores (..., G, T)
Partial = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # maximum (..., 1), sum (..., 1), values (..., D_v)
_LOWEST = torch.finfo(torch.float32).min  # stands in for the maximum of a tile that a row does not see


def batch_invariant_attention(
    query: torch.Tensor,
    cache: LayerCache,
    rows: Rows,
    scaling: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    distances: torch.Tensor | None = None,
    chunk: int = 0,
    picked: Biases | None = None,
) -> torch.Tensor:
    """Attention output (R, H, D_v) float32 of queries (R, H, D); the rows' keys are in the cache already.

    `window` is the number of positions seen, itself included (0: all); `softcap` bounds scores (0: none). `sinks`
    (H,) are scores of keys without values: they are in the sum of exponentials and nowhere else. To a score are added
    `slopes` (H,) times the key's position less the row's (ALiBi), or `distances` (H, n) at the row's
    position less the key's, the last one beyond (T5). With a `chunk`, a row sees its chunk of so many positions
    from the beginning on. Of the keys that it sees, a row attends to those that it `picked`, if it did.
    """
    scaled = query.float() * scaling
    seen = -chunk if chunk else window
    scores = _Scores(softcap, _added(slopes, distances, cache.shape.num_kv_heads), picked)
    partial = _tail(scaled, cache, rows, seen, scores)
    shared = rows.shared(seen)
    if shared is not None:
        partial = _combine(_shared(scaled, cache, rows, shared, scores), partial)
    _, total, out = partial if sinks is None else _with_sinks(partial, sinks.float().view(-1, 1))
    return out / total


@dataclass(frozen=True)
class _Scores:
    """What becomes of scores: the bound (0: none), what is added by distance, and what was picked."""

    softcap: float
    added: Added | None
    picked: Biases | None

    def bias(
        self, bias: torch.Tensor, distances: Callable[[], torch.Tensor], picked: torch.Tensor | None
    ) -> torch.Tensor:
        """A bias (B, 1, g, 1, T) with what is added by distance: (B, H_kv, g, G, T)."""
        seen = bias if picked is None else bias + picked
        return seen if self.added is None else seen + self.added(distances())


def _added(slopes: torch.Tensor | None, distances: torch.Tensor | None, num_kv_heads: int) -> Added | None:
    """From distances (B, 1, g, 1, T) to what is added to scores (B, H_kv, g, G, T); None if nothing is."""
    if slopes is not None:
        factors = slopes.view(num_kv_heads, 1, -1, 1)
        return lambda ahead: factors * -ahead.float()
    if distances is not None:
        table = distances.view(num_kv_heads, -1, distances.shape[1])
        return lambda ahead: _looked_up(table, ahead.clamp(0, distances.shape[1] - 1))
    return None


def _looked_up(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Values of `table` (H_kv, G, n) at `index` (B, 1, g, 1, T): (B, H_kv, g, G, T)."""
    found = table[:, :, index[:, 0, :, 0]]  # (H_kv, G, B, g, T)
    return found.permute(2, 0, 3, 1, 4)


def _tail(query: torch.Tensor, cache: LayerCache, rows: Rows, window: int, made: _Scores) -> Partial:
    """The tail's partial result per row: (R, H, 1), (R, H, 1), (R, H, D_v)."""
    heads, g = cache.shape.num_kv_heads, rows.rows_per_group
    keys, values = cache.read(rows.tail_index(heads))
    num_rows, num_heads, dim = query.shape
    grouped = query.view(num_rows // g, g, heads, num_heads // heads, dim).transpose(1, 2)
    partial = _attend(
        grouped,
        keys.view(-1, heads, TAIL, dim),
        values.view(-1, heads, TAIL, cache.shape.value_dim),
        made.bias(rows.tail_bias(window), rows.tail_distances, made.picked and made.picked.tail),
        made.softcap,
    )
    top, total, out = (t.transpose(1, 2).reshape(num_rows, num_heads, -1) for t in partial)
    return top, total, out


def _shared(query: torch.Tensor, cache: LayerCache, rows: Rows, shared: Shared, made: _Scores) -> Partial:
    """The earlier tiles' partial results per row: (R, tiles, H, ...) each."""
    heads, tiles = cache.shape.num_kv_heads, shared.num_tiles
    keys, values = cache.read_pages(shared.pages)
    num_blocks, block = rows.blocks.shape
    num_heads, dim = query.shape[1:]
    blocked = query.index_select(0, rows.block_index())
    blocked = blocked.view(num_blocks, 1, block, heads, num_heads // heads, dim).transpose(2, 3)
    blocked = blocked.expand(-1, tiles, -1, -1, -1, -1).reshape(-1, heads, block, num_heads // heads, dim)
    bias = shared.bias.expand(num_blocks, tiles, -1, -1).flatten(0, 1)[:, None, :, None, :]
    ahead = shared.distances.flatten(0, 1)[:, None, :, None, :]
    partial = _attend(
        blocked, keys, values, made.bias(bias, lambda: ahead, made.picked and made.picked.shared), made.softcap
    )
    return tuple(_by_row(t, tiles, num_blocks * block, rows) for t in partial)  # type: ignore[return-value]


def _by_row(partial: torch.Tensor, tiles: int, num_places: int, rows: Rows) -> torch.Tensor:
    """(blocks * tiles, H_kv, rows, G, X) to (R, tiles, H, X)."""
    _, heads, block, group, size = partial.shape
    split = partial.view(-1, tiles, heads, block, group, size).permute(0, 3, 1, 2, 4, 5)
    return split.reshape(num_places, tiles, heads * group, size).index_select(0, rows.place_index())


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor, softcap: float
) -> Partial:
    """One tile each: queries (B, H_kv, g, G, D) over keys (B, H_kv, T, D); bias broadcasts to (B, H_kv, g, G, T)."""
    batch, heads, g, group, dim = query.shape
    flat = query.reshape(batch * heads, g * group, dim)
    scores = _bmm(flat, keys.reshape(batch * heads, -1, dim).transpose(1, 2))
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.view(batch, heads, g, group, -1) + bias
    top = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - top.clamp(min=_LOWEST))
    out = _bmm(weights.view(batch * heads, g * group, -1), values.reshape(batch * heads, -1, values.shape[-1]))
    return top, weights.sum(-1, keepdim=True), out.view(batch, heads, g, group, -1)


def _bmm(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Batched product. A batch of one is given as two: the library splits a lone product among threads."""
    if len(left) > 1:
        return torch.bmm(left, right)
    return torch.bmm(left.expand(2, -1, -1), right.expand(2, -1, -1))[:1]


def _combine(shared: Partial, tail: Partial) -> Partial:
    """Log-sum-exp over the shared tiles, then the tail: (R, H, 1), (R, H, 1), (R, H, D_v)."""
    top = torch.maximum(shared[0].amax(1), tail[0])
    weight = torch.exp(shared[0] - top[:, None])
    tail_weight = torch.exp(tail[0] - top)
    total = _sum_tiles(weight * shared[1]) + tail_weight * tail[1]
    out = _sum_tiles(weight * shared[2]) + tail_weight * tail[2]
    return top, total, out


def _with_sinks(partial: Partial, sinks: torch.Tensor) -> Partial:
    """The partial result (R, H, ...) with a key of no value for each head."""
    highest, total, out = partial
    top = torch.maximum(highest, sinks)
    scale = torch.exp(highest - top)
    return top, scale * total + torch.exp(sinks - top), scale * out


def _sum_tiles(parts: torch.Tensor) -> torch.Tensor:
    """Sum over dimension 1, neighbours first: zeros at the end never change a bit."""
    while parts.shape[1] > 1:
        if parts.shape[1] % 2:
            parts = torch.cat([parts, torch.zeros_like(parts[:, :1])], 1)
        parts = parts[:, 0::2] + parts[:, 1::2]
    return parts[:, 0]


assert TAIL == 2 * PAGE_SIZE  # the split above is written for these sizes
