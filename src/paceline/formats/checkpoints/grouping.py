"""Which group each code along K is in, and in which order K goes so that groups lie together."""

from __future__ import annotations

import numpy as np

from paceline.errors import ModelError
from paceline.formats.checkpoints.bits import Array

Grouping = tuple[Array, Array | None]  # the group of each code (K,), and `BlockRows.order`


def even_groups(name: str, k: int, size: int, count: int) -> Grouping:
    """Groups of one size, the last of them perhaps shorter.

    Raises:
        ModelError: there are not as many of them.
    """
    if -(-k // size) != count:
        raise ModelError(f"{name} has {count} groups; allowed: {-(-k // size)}, of {size} along K = {k}")
    return np.arange(k) // size, None


def listed_groups(name: str, g_idx: Array, count: int) -> Grouping:
    """Groups as a tensor (K,) lists them.

    Raises:
        ModelError: it lists one that there is not.
    """
    group_of = g_idx.astype(np.int64)
    low, high = int(group_of.min()), int(group_of.max())
    if low < 0 or high >= count:
        raise ModelError(f"{name} has numbers from {low} to {high}; allowed: 0 to {count - 1}")
    if (group_of[1:] >= group_of[:-1]).all():
        return group_of, None
    order = group_of.argsort(kind="stable")
    return group_of[order], order
