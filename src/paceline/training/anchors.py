"""Where blocks begin in packed sequences, what stands in their slots, and what is to be predicted there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from paceline.training.packing import Packed


@dataclass(frozen=True)
class Anchors:
    """A blocks in each of N sequences, each with P proposals.

    Proposal k of a block at place p has token p + k before it, and is to be token p + k + 1.
    """

    places: torch.Tensor  # (N, A)
    before: torch.Tensor  # (N, A, P) places of the tokens before
    is_valid: torch.Tensor  # (N, A, P) the predicted token is of the same document, which the target wrote


def candidates(batch: Packed) -> torch.Tensor:
    """(N, S) whether a step may begin with this token pending: text is before it, and the target wrote the next."""
    follows = torch.zeros_like(batch.is_output)
    follows[:, :-1] = batch.is_output[:, 1:] & (batch.document[:, 1:] == batch.document[:, :-1])
    return follows & (batch.positions > 0)


def at(batch: Packed, places: torch.Tensor, num_proposals: int) -> Anchors:
    """The blocks at places (N, A)."""
    device = places.device
    before = places[..., None] + torch.arange(num_proposals, device=device)
    after = (before + 1).clamp(max=batch.tokens.shape[1] - 1)
    shape = before.shape
    document, output = (part.gather(1, after.flatten(1)).view(shape) for part in (batch.document, batch.is_output))
    is_valid = (document == batch.document.gather(1, places)[..., None]) & output & (before + 1 < batch.tokens.shape[1])
    return Anchors(places, before.clamp(max=batch.tokens.shape[1] - 1), is_valid)


def drawn(batch: Packed, count: int, num_proposals: int, draw: np.random.Generator) -> Anchors:
    """`count` blocks in each sequence, drawn at random without replacement; those of no use are not valid."""
    keys = torch.from_numpy(draw.random(batch.tokens.shape, np.float32)).to(batch.tokens.device)
    allowed = candidates(batch)
    order = keys.masked_fill(~allowed, -1.0).topk(min(count, keys.shape[1]), -1).indices.sort(-1).values
    found = at(batch, order, num_proposals)
    return Anchors(found.places, found.before, found.is_valid & allowed.gather(1, order)[..., None])


def spread(batch: Packed, stride: int, num_proposals: int) -> Anchors:
    """Every `stride`-th place of each document where all proposals are valid, by its position; the rest not valid."""
    places = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand_as(batch.tokens)
    found = at(batch, places, num_proposals)
    is_chosen = candidates(batch) & (batch.positions % stride == 0) & found.is_valid.all(-1)
    count = int(is_chosen.sum(-1).max())
    order = is_chosen.float().topk(max(count, 1), -1).indices.sort(-1).values
    chosen = at(batch, order, num_proposals)
    return Anchors(order, chosen.before, chosen.is_valid & is_chosen.gather(1, order)[..., None])
