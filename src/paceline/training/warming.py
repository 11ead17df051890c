"""A head's transition before the first step: what follows what in the texts, as far as its rank goes.

log p(b | a) - log p(b), counted and smoothed, weighted by how often tokens occur, is cut to its largest singular
values, and fitted. One number of the vector is kept for log p(b) itself. So training begins with a bigram model in
every slot, and the layers learn what the text before adds to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from paceline.heads.transitions import GatedTransition, RecurrentTransition, Transition
from paceline.training.data import Document

_SMOOTH = 60.0  # occurrences of a token that its followers are smoothed by
_LARGEST = 8192  # tokens of a vocabulary for which the table of pairs is made
_FEW_ROUNDS = 4  # of the randomised decomposition
_STEPS, _RATE = 30, 0.05  # of the fit behind it
_LINEAR = 0.5  # below it tanh is nearly a line


@torch.no_grad()
def warm_up(transition: Transition, documents: Sequence[Document], seed: int) -> bool:
    """Fill a transition from texts; False, and nothing is done, where the vocabulary is too large for it."""
    size, rank = transition.markov_w1.weight.shape
    if size > _LARGEST or transition.markov_w2.weight.shape[0] != size or rank < 2:
        return False
    first, second = factors(_pairs(documents, size), rank, seed)
    scale, gain = _reach(transition, first)
    transition.markov_w1.weight.copy_(first * scale)
    transition.markov_w2.weight.copy_(second / (scale * gain))
    return True


def factors(pairs: torch.Tensor, rank: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(V, r) twice, whose product is about log p(b | a), from counts (V, V) of b behind a; see the module."""
    total, share = pairs.sum(1, keepdim=True), (pairs.sum(0) + 0.1) / (pairs.sum() + 0.1 * len(pairs))
    given = (pairs + _SMOOTH * share) / (total + _SMOOTH)
    left, right = (pairs.sum(1) / pairs.sum()).sqrt()[:, None] + 1e-4, share.sqrt()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        table = left * (given / share).log() * right
        u, s, v = torch.svd_lowrank(table, rank - 1, _FEW_ROUNDS)
    ones = torch.ones(len(pairs), 1)
    first = torch.cat([ones, u * s.sqrt() / left], 1)
    second = torch.cat([share.log()[:, None] - share.log().mean(), v * s.sqrt() / right[:, None]], 1)
    return _fitted(first, second, given * left.square())


@torch.enable_grad()
def _fitted(first: torch.Tensor, second: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same after some steps on the cross-entropy of `wanted` (V, V): its rows' sums are their weights."""
    weights = [first.clone().requires_grad_(), second.clone().requires_grad_()]
    optimizer = torch.optim.Adam(weights, lr=_RATE, fused=True)
    for _ in range(_STEPS):
        loss = -(wanted * (weights[0] @ weights[1].T).log_softmax(-1)).sum() / wanted.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights[0].detach(), weights[1].detach()


def _pairs(documents: Sequence[Document], size: int) -> torch.Tensor:
    counts = np.zeros(size * size, np.float32)
    for document in documents:
        tokens = document.tokens.astype(np.int64)
        np.add.at(counts, tokens[:-1] * size + tokens[1:], 1.0)
    return torch.from_numpy(counts).view(size, size)


def _reach(transition: Transition, first: torch.Tensor) -> tuple[torch.Tensor | float, float]:
    """By what W1 is scaled, and by what the kind of transition multiplies it on its way to W2."""
    rank = transition.rank
    if isinstance(transition, GatedTransition):
        nn.init.zeros_(transition.gate_proj.weight)
        nn.init.zeros_(transition.gate_proj.bias)
        return 1.0, 0.5
    if isinstance(transition, RecurrentTransition):
        out = slice(2 * rank, 3 * rank)
        transition.joint_proj.weight[out].zero_()
        transition.joint_proj.weight[out, rank : 2 * rank] = torch.eye(rank)
        transition.joint_proj.bias[out].zero_()
        return _LINEAR / first.abs().quantile(0.99, 0).clamp_min(1e-6), 1.0
    return 1.0, 1.0
