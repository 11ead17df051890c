"""Which group each code along K is in, and in which order K goes so that groups lie together."""

from __future__ import annotations

import torch

from paceline.errors import ModelError

Grouping = tuple[torch.Tensor, torch.Tensor | None]  # the group of each code (K,), and `BlockRows.order`


def even_groups(name: str, k: int, size: int, count: int) -> Grouping:
    """Groups of one size, the last of them perhaps shorter.

    Raises:
        ModelError: there are not as many of them.
    """
    if -(-k // size) != count:
        raise ModelError(f"{name} has {count} groups; allowed: {-(-k // size)}, of {size} along K = {k}")
    return torch.arange(k) // size, None


def listed_groups(name: str, g_idx: torch.Tensor, count: int) -> Grouping:
    """Groups as a tensor (K,) lists them.

    Raises:
        ModelError: it lists one that there is not.
    """
    group_of = g_idx.long()
    low, high = (int(x) for x in group_of.aminmax())
    if low < 0 or high >= count:
        raise ModelError(f"{name} has numbers from {low} to {high}; allowed: 0 to {count - 1}")
    if bool((group_of[1:] >= group_of[:-1]).all()):
        return group_of, None
    order = group_of.argsort(stable=True)
    return group_of[order], order
