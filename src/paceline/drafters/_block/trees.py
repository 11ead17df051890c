"""The trees of some requests, by the way that the head's forward allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._block.growing import Growth
from paceline.drafters._block.native import Asked, NativeTrees
from paceline.engine.tree import DraftTree
from paceline.heads.block import BlockHead
from paceline.heads.block_guest import BlockGuest
from paceline.heads.weights import Floats, Weights
from paceline.model.head_forward import RecordedHead


class Trees(Protocol):
    """Makes trees."""

    d2t: (
        NDArray[np.int64] | None
    )  # (num_logits,) the target's token of each of the head's; None where they are the same

    def grow(self, asked: Sequence[Asked], weights: Weights | None, source: str) -> list[DraftTree]:
        """One each for requests whose pages have room for a block, no more than a forward has blocks."""

    def said(self, place: int) -> Floats:
        """(proposals, num_logits + F) what the head said for the last call's request at that place, until the next."""


class SlotTrees:
    """Makes them in Python, of what the head's slots said."""

    def __init__(self, guest: BlockGuest, d2t: NDArray[np.int64] | None) -> None:
        self._guest, self.d2t = guest, d2t
        self._said: Floats = np.zeros((0, 0, 0), np.float32)

    def grow(self, asked: Sequence[Asked], weights: Weights | None, source: str) -> list[DraftTree]:
        """See `Trees`."""
        self._said = self._guest.slots([(sequence, request.tokens[-1]) for request, sequence, _ in asked])
        return [
            Growth(slots, weights, self.d2t).tree(request, limits, source)
            for slots, (request, _, limits) in zip(self._said, asked, strict=True)
        ]

    def said(self, place: int) -> Floats:
        """See `Trees`."""
        return np.asarray(self._said[place])


def trees_of(guest: BlockGuest, head: BlockHead) -> Trees:
    """By one native call where the head's forward is one."""
    d2t = None if head.d2t is None else np.ascontiguousarray(head.d2t.cpu().numpy(), np.int64)
    if isinstance(guest.forward, RecordedHead) and guest.forward.is_one_call:
        return NativeTrees(guest, guest.forward, d2t)
    return SlotTrees(guest, d2t)
