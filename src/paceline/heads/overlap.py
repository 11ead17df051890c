"""How much of what a target would say a head foresees, on texts that the target wrote: the overlap 1 - TV of both laws.

Overlaps are means over rows, at depth 1 and 2: the first token that a draft adds, and the second behind a right first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from paceline.heads.block import BlockHead
from paceline.heads.chained import ChainedHead
from paceline.heads.dense import DenseStep, causal
from paceline.heads.medusa import MedusaHead
from paceline.heads.seen import Seen
from paceline.model.interface import answered_by

LABELS = (0, -1, 1)  # what a row may predict in place of what it should: that, the token before it, the one behind it
_ANCHORS = 96  # blocks that are tried, at most
_PIECE = 64  # rows whose laws are compared at a time


class Guess(NamedTuple):
    """What a head says of some tokens."""

    logits: torch.Tensor  # (N, num_logits)
    rows: torch.Tensor  # (N,) the row of each token that it should be


class Overlaps(NamedTuple):
    """By depth, and at depth 1 what it would be were labels shifted: see `LABELS`."""

    first: float
    second: float
    shifted: tuple[float, ...]

    @property
    def score(self) -> float:
        """What a reading is chosen by."""
        return self.first + self.second


@torch.inference_mode()
def overlaps(head: Any, seen: Seen) -> Overlaps:
    """Of a bound head, as it is read now."""
    guess = guesses(head, seen)
    first, second = (_overlap(head, seen, one) for one in guess)
    return Overlaps(first, second, tuple(_overlap(head, seen, guess[0], label) for label in LABELS[1:]))


def guesses(head: Any, seen: Seen) -> list[Guess]:
    """What a bound head says at depth 1 and at depth 2, fed with what the target said."""
    if isinstance(head, BlockHead):
        return _of_blocks(head, seen)
    if isinstance(head, MedusaHead):
        return _of_medusa(head, seen)
    return _of_chain(head, seen)


def _of_chain(head: ChainedHead, seen: Seen) -> list[Guess]:
    rows = seen.ahead(2)
    states = head.states([seen.taps[tap][rows][None] for tap in head.config.taps])
    distances = causal(seen.texts[rows], seen.positions[rows])
    step = DenseStep(distances)
    with answered_by(step):
        states, logits = head(seen.tokens[rows + 1][None], states, seen.positions[rows][None])
    first = Guess(logits[0], rows + 2)
    further = torch.isin(rows, seen.ahead(3))
    deeper = rows[further]
    own = torch.where(torch.eye(len(deeper), dtype=torch.bool, device=rows.device), 0, -1)
    earlier = distances[further]
    step = DenseStep(torch.cat([torch.where(earlier >= 0, earlier + 1, -1), own], 1), step.kept)
    tokens, fed = seen.tokens[deeper + 2][None], states[:, further]
    mask = getattr(head.config, "mask_token_id", -1)
    if mask >= 0:
        tokens, fed = torch.full_like(tokens, mask), head.mask_state().expand_as(fed)  # type: ignore[operator]
    with answered_by(step):
        _, logits = head(tokens, fed, seen.positions[deeper][None] + 1)
    return [first, Guess(logits[0], deeper + 3)]


def _of_medusa(head: MedusaHead, seen: Seen) -> list[Guess]:
    rows = seen.ahead(3)
    logits = head(head.states([seen.taps[tap][rows][None] for tap in head.config.taps]))
    return [Guess(logits[min(i, len(logits) - 1)][0], rows + 2 + i) for i in range(2)]


def _of_blocks(head: BlockHead, seen: Seen) -> list[Guess]:
    config, size = head.config, head.config.block_size
    context = head.context([seen.taps[tap][None] for tap in config.taps], seen.positions[None])
    anchors = seen.ahead(2)
    anchors = anchors[seen.positions[anchors] > 0]
    anchors = anchors[:: -(-len(anchors) // _ANCHORS)]
    tokens = seen.tokens.new_full((len(anchors), size), config.mask_token_id)
    slots = torch.arange(size, device=anchors.device)
    tokens[:, 0] = seen.tokens[anchors]
    positions = seen.positions[anchors][:, None] + slots
    step = DenseStep(_block_distances(config.is_causal, seen, anchors, positions), context)
    with answered_by(step):
        hidden, logits = head(tokens.view(1, -1), positions.view(1, -1))
    split = logits[0].view(len(anchors), size, -1)
    if head.markov_head is not None:
        before = seen.tokens[(anchors[:, None] + slots - config.first_slot).clamp(0, len(seen.tokens) - 1)]
        split = split + head.markov_head.biases(hidden[0].view(len(anchors), size, -1), before)
    last = size - 1
    return [Guess(split[:, min(config.first_slot + depth, last)], anchors + 1 + depth) for depth in range(2)]


def _block_distances(is_causal: bool, seen: Seen, anchors: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(N * B, R + N * B): a slot sees the text before its anchor, and its own block."""
    count, size = positions.shape
    before = (seen.texts[anchors][:, None] == seen.texts) & (seen.positions < seen.positions[anchors][:, None])
    flat = positions.reshape(-1)
    text = torch.where(before.repeat_interleave(size, 0), flat[:, None] - seen.positions, -1)
    blocks = torch.arange(count, device=flat.device).repeat_interleave(size)
    ahead = flat[:, None] - flat
    own = torch.where(blocks[:, None] == blocks, ahead if is_causal else ahead.clamp(min=0), -1)
    return torch.cat([text, own], 1)


def _overlap(head: Any, seen: Seen, guess: Guess, label: int = 0) -> float:
    """The mean over the tokens that the target said; 0 for logits that are no numbers."""
    rows = guess.rows + label
    said = seen.is_said[rows.clamp(0, len(seen.tokens) - 1)] & (rows < len(seen.tokens))
    logits, rows = guess.logits[said], rows[said]
    found = [
        _shared(logits[part], seen.logits[rows[part] - 1], head.d2t)
        for part in torch.split(torch.arange(len(rows), device=rows.device), _PIECE)
    ]
    return float(torch.cat(found).nan_to_num(0.0).mean()) if found else 0.0


def _shared(own: torch.Tensor, target: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """(N,) sums over tokens of the smaller probability."""
    law = target.float().softmax(-1)
    law = law[:, : own.shape[1]] if ids is None else law[:, ids.to(law.device)]
    return torch.minimum(law, own.float().softmax(-1)).sum(-1)
