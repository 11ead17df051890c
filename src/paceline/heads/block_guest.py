"""A block head as its target's guest, and its own forward: a block of rows for each request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from paceline.heads.block import BlockHead
from paceline.model.head_forward import MAX_ROWS, head_forward
from paceline.model.numerics import apply_to_head
from paceline.model.pool import CachedSequence, LayerShape
from paceline.native.frame import FrameSequence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from paceline.model.hosting import Host, Kept


class BlockGuest:
    """See `Guest`. What it keeps of each position are the keys and values of the head's layers.

    Raises:
        ModelError: the head does not go with the target.
    """

    def __init__(self, head: BlockHead, host: Host) -> None:
        head.bind(host.model)
        self._transition = head.markov_head
        self.context_bytes = sum(w.numel() for w in head.context_weights()) * host.model.dtype.itemsize
        apply_to_head(head, host.model, but=head.markov_head)
        self._head, self._host = head, host
        self.config = head.config
        kv_heads, size = self.config.layers.num_key_value_heads, head.head_size
        self.taps = self.config.taps
        self.shapes = [LayerShape(kv_heads, size, size)] * len(head.layers)
        self.kept = host.attach(self)
        tokens, positions = torch.zeros(2, MAX_ROWS, dtype=torch.int64, device=host.model.device)
        tokens += self.config.mask_token_id
        self.forward = head_forward(self._compute, (tokens, positions), self.kept, host.pool.num_pages)

    def leave(self) -> None:
        """Have the target keep nothing for it any more."""
        self._host.detach(self, self.kept)

    @property
    def max_blocks(self) -> int:
        """Most blocks of one forward."""
        return MAX_ROWS // self.config.block_size

    def keep(self, taps: Sequence[torch.Tensor], positions: torch.Tensor) -> Kept:
        """See `Guest`."""
        return self._head.context(taps, positions)

    def has_room(self, sequence: CachedSequence) -> bool:
        """Whether a block fits behind what is committed; the target's pages grow by what it takes."""
        end = sequence.length + self.config.block_size
        if end > self._host.last_position + 1:
            return False
        self._host.pool.extend(sequence, end)
        return len(sequence.pages) * self._host.pool.page_size >= end

    def slots(self, blocks: Sequence[tuple[CachedSequence, int]]) -> NDArray[np.float32]:
        """(blocks, proposals, num_logits + num_features) of sequences and their pending tokens; `has_room` held."""
        size = self.config.block_size
        tokens, positions = self.forward.inputs
        for index, (sequence, pending) in enumerate(blocks):
            first = index * size
            tokens[first] = pending
            positions[first : first + size] = torch.arange(sequence.length, sequence.length + size)
        result = self.forward.run([self._rows(sequence) for sequence, _ in blocks]).cpu().numpy()
        return result.reshape(len(blocks), size, -1)[:, self.config.first_slot :]

    def _rows(self, sequence: CachedSequence) -> FrameSequence:
        size, start = self.config.block_size, sequence.length
        slots = sequence.slots_from(start, size)
        if self.config.is_causal:
            paths = [range(end) for end in range(1, size + 1)]
            return FrameSequence(sequence.pages, start, range(start, start + size), slots, slots, paths)
        end = [start + size - 1] * size  # a row sees what lies before its position
        return FrameSequence(sequence.pages, start, end, slots, slots, [range(size)] * size)

    def _compute(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden, logits = self._head(tokens[None], positions[None])
        parts = [logits[0, :, : self.config.num_logits].float()]
        if self._transition is not None and self._transition.num_features:
            parts.append(self._transition.features(hidden)[0].float())
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
