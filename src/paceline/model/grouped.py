"""Linears among which rows choose: rows are grouped by what they chose, and no row's bits know its group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from paceline.model.linears import inputs_of
from paceline.native.layout import Op
from paceline.native.library import Library
from paceline.native.ops import PackedWeight, run
from paceline.native.quantized import QuantizedWeight

Grouped = Callable[[Sequence["Group"], torch.Tensor], torch.Tensor]
Packed = PackedWeight | QuantizedWeight
Gate = Callable[[torch.Tensor], torch.Tensor]  # (M, N) of the first linears to (M, K) of the second, row by row


class Group(NamedTuple):
    """Rows from `first` up to `end` chose this expert."""

    expert: int
    first: int
    end: int


class Choice(NamedTuple):
    """Choices of rows, sorted by expert: choice `i` was in place `order[i]` of (R, k), flattened."""

    order: torch.Tensor
    groups: list[Group]


class PackedLinears(nn.Module):
    """The packed weights of as many linears as there are experts, and biases (E, N) if they have some."""

    def __init__(self, library: Library, weights: Sequence[Packed], biases: torch.Tensor | None = None) -> None:
        super().__init__()
        self._library, self._weights = library, list(weights)
        self._biases = None if biases is None else biases.detach()

    def weights(self) -> list[torch.Tensor]:
        """All that it computes with but the biases, as it lies in memory."""
        return [weight.data for weight in self._weights]

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return sum(weight.num_bytes for weight in self._weights)

    def forward(self, groups: Sequence[Group], x: torch.Tensor) -> torch.Tensor:
        """(M, N) of rows (M, K), each group by its expert's linear; rows of no group are 0."""
        first = self._weights[0]
        out = torch.zeros(len(x), first.num_columns, dtype=first.dtype)
        ops = [self._op(group, out, x) for group in groups]
        for op in ops[1:]:
            op.barrier = 0  # they write to different rows
        if ops:
            run(self._library, ops)
        return out

    def _op(self, group: Group, out: torch.Tensor, x: torch.Tensor) -> Op:
        weight, rows = self._weights[group.expert], slice(group.first, group.end)
        bias = None if self._biases is None else self._biases[group.expert]
        return weight.linear(out[rows], inputs_of(weight, x[rows]), bias)


def packed(library: Library, weights: Sequence[torch.Tensor]) -> list[Packed]:
    """Weights (N, K) of any strides, packed."""
    return [PackedWeight(library, weight.detach()) for weight in weights]


def choice_of(index: torch.Tensor, num_experts: int) -> Choice:
    """What rows chose by `index` (R, k); who chose one from `num_experts` on is last, and in no group."""
    chosen = index.flatten().numpy()
    order = np.argsort(chosen, kind="stable")
    experts, firsts = np.unique(chosen[order], return_index=True)
    ends = [*firsts[1:].tolist(), len(chosen)]
    groups = [Group(*each) for each in zip(experts.tolist(), firsts.tolist(), ends, strict=True)]
    return Choice(torch.from_numpy(order), [group for group in groups if group.expert < num_experts])


def added_up(choice: Choice, parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(R, H) of parts (R * k, H) as they were sorted, weighted by (R, k), in the order in which the router ranked."""
    placed = torch.empty_like(parts).index_copy_(0, choice.order, parts)
    weighted = placed.view(*weights.shape, -1) * weights.unsqueeze(-1)
    total = weighted[:, 0]
    for rank in range(1, weights.shape[1]):
        total = total + weighted[:, rank]
    return total


def mixed(
    up: PackedLinears, down: Grouped, gate: Gate, x: torch.Tensor, index: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """(R, H) the experts `index` (R, k) of each row of `x` (R, H), weighted by `weights` (R, k)."""
    choice = choice_of(index, len(up.weights()))
    rows = x.index_select(0, choice.order // index.shape[1])
    parts = down(choice.groups, gate(up(choice.groups, rows)).contiguous())
    return added_up(choice, parts, weights)
