"""Log-probabilities of a few candidates under a softmax over the whole vocabulary, with its gradient.

What a loss needs of a row's logits is those of its candidates and their normaliser. Written out, the softmax and its
gradient pass some ten times over all logits, which costs more than the product that made them. Here a part of the rows
is finished while it lies in the processor's cache, and what is kept for the way back are the logits, in bf16 where the
product is.
"""

from __future__ import annotations

from typing import Any

import torch

_PART = 2**20  # logits of a part


class _Candidates(torch.autograd.Function):
    """See `log_candidates`."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, table: torch.Tensor, tail: torch.Tensor, ids: torch.Tensor) -> Any:
        width, kept, norms, chosen = table.shape[1], [], [], []
        for part, tokens in zip(_parts(states, len(table)), _parts(ids, len(table)), strict=True):
            logits = torch.addmm(part[:, width:] @ tail.T, part[:, :width], table.T)
            scratch = logits.to(torch.float32, copy=True)
            peak = scratch.amax(-1, keepdim=True)
            norms.append(scratch.sub_(peak).exp_().sum(-1, keepdim=True).log_().add_(peak))
            chosen.append(logits.gather(-1, tokens).float() - norms[-1])
            kept.append(logits)
        ctx.save_for_backward(states, table, tail, ids, torch.cat(norms), *kept)
        return torch.cat(chosen)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        states, table, tail, ids, norms, *kept = ctx.saved_tensors
        width, size = table.shape[1], len(table)
        back, to_tail = torch.empty_like(states), torch.zeros_like(tail, dtype=torch.float32)
        parts = (_parts(one, size) for one in (states, ids, norms, grad, back))
        for logits, (part, tokens, norm, given, out) in zip(kept, zip(*parts, strict=True), strict=True):
            raw = logits.to(torch.float32, copy=True).sub_(norm).exp_().mul_(-given.sum(-1, keepdim=True))
            push = raw.scatter_add_(-1, tokens, given).to(logits.dtype)
            out[:, :width] = push @ table
            out[:, width:] = push @ tail
            to_tail += (push.T @ part[:, width:]).float()
        return back, None, to_tail.to(tail.dtype), None


def log_candidates(states: torch.Tensor, table: torch.Tensor, tail: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(R, K) float32 log-probabilities of tokens `ids` (R, K) under logits `states @ [table, tail].T`.

    Args:
        states: (R, h + r), already divided by the temperature.
        table: (V, h) a language-model head that is not trained.
        tail: (V, r) what a transition adds to it; trained.
        ids: the candidates.
    """
    return _Candidates.apply(states, table, tail, ids)  # type: ignore[no-any-return, no-untyped-call]


def _parts(rows: torch.Tensor, vocabulary: int) -> tuple[torch.Tensor, ...]:
    return torch.split(rows, max(1, _PART // vocabulary))
