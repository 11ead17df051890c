"""An index of the places where the last 2, 4 or 8 tokens stood before: hash chains, as in zlib's deflate.

A table of heads leads to the newest place of each hash and `previous` from each place to the one before it. Each order
has a part of the table to itself, since a chain that went through a place of another order would be lost there. Nothing
is ever removed: whoever walks a chain compares the tokens, and stops where the next place is no older than the last,
since the store has been written over there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._store.pages import zeros

ORDERS = (8, 4, 2)  # tokens that are hashed together, the longest first
BYTES_PER_PLACE = 4 * len(ORDERS) + 8  # the chains, and two heads
_BASE = 0x9E3779B97F4A7C15  # odd, well mixed: 2**64 over the golden ratio
_MIX = 0xD6E8FEB86659FD93
_MASK = (1 << 64) - 1
_POWERS = [pow(_BASE, i, 1 << 64) for i in range(ORDERS[0])]


class ChainIndex:
    """Places 1 to `size` - 1 by what stands before them; a place may be entered again when it is written over."""

    def __init__(self, size: int) -> None:
        self._part = max(2 * size // len(ORDERS), 1)  # heads of each order
        self._heads = zeros(self._part * len(ORDERS), np.int32)
        self._previous = {order: zeros(size, np.int32) for order in ORDERS}
        self._head_view = self._heads.data
        self._previous_views = {order: table.data for order, table in self._previous.items()}

    @property
    def num_bytes(self) -> int:
        """Memory held."""
        return self._heads.nbytes + sum(table.nbytes for table in self._previous.values())

    def enter(self, tokens: NDArray[np.int32], first: int, owner: int) -> None:
        """Enter every place of a text that stands at `first`, but the one behind its end."""
        if len(tokens) <= ORDERS[-1]:
            return
        sums = tokens.astype(np.uint64)
        for part, order in reversed(list(enumerate(ORDERS))):
            half = order // 2
            if len(sums) <= half:
                return
            sums = sums[half:] + sums[:-half] * np.uint64(_POWERS[half])
            mixed = ((sums[:-1] ^ np.uint64(_salt(owner, order))) * np.uint64(_MIX)) >> np.uint64(32)
            buckets = (mixed % np.uint64(self._part)).astype(np.int64) + part * self._part
            self._link(buckets, np.arange(first + order, first + len(tokens), dtype=np.int32), self._previous[order])

    def chains(self, context: Sequence[int], owner: int) -> Iterator[tuple[int, int, memoryview]]:
        """(order, newest place or 0, previous place by place) for each order that the context is long enough for."""
        total, sums = 0, {}
        for size, token in enumerate(context[: -ORDERS[0] - 1 : -1], start=1):
            total += token * _POWERS[size - 1]
            sums[size] = total & _MASK
        for part, order in enumerate(ORDERS):
            if order in sums:
                mixed = ((sums[order] ^ _salt(owner, order)) * _MIX & _MASK) >> 32
                yield order, self._head_view[mixed % self._part + part * self._part], self._previous_views[order]

    def _link(self, buckets: NDArray[np.int64], places: NDArray[np.int32], previous: NDArray[np.int32]) -> None:
        """Put places, rising, in front of their buckets' chains."""
        if not len(places):
            return
        order = np.argsort(buckets, kind="stable")
        buckets, places = buckets[order], places[order]
        again = np.flatnonzero(buckets[1:] == buckets[:-1]) + 1
        before = self._heads[buckets]
        before[again] = places[again - 1]
        previous[places] = before
        self._heads[buckets] = places  # of equal buckets the last assignment stays: the newest


def _salt(owner: int, order: int) -> int:
    """Keeps owners and orders in chains of their own, up to collisions."""
    return (owner * _BASE + order * _MIX) & _MASK
