"""What a chained head has read of a request. Its own keys and values lie in the target's pages, and move with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paceline.drafters._draft_model import FedNodes
from paceline.native.layout import PAGE

if TYPE_CHECKING:
    from paceline.model.pool import CachedSequence


class Followed(FedNodes):
    """One request: rows up to `num_read` have their keys and values behind true states.

    `outs` are the states, tensors (width,), that the nodes fed have left, in order; `root` is the last true row's.
    """

    def __init__(self, sequence: CachedSequence) -> None:
        super().__init__(sequence)
        self.num_read = 0
        self._pages = sequence.pages[:0]
        self.root: Any = None
        self.outs: list[Any] = []

    def follow(self, sequence: CachedSequence) -> None:
        """Look where the request's pages are now: what lies in others than before was not read there."""
        self.clear()
        self.outs = []
        if sequence is not self.sequence:
            self.sequence, self.num_read = sequence, 0
        count = min(len(self._pages), len(sequence.pages))
        moved = np.flatnonzero(self._pages[:count] != sequence.pages[:count])
        known = int(moved[0]) if len(moved) else count
        self.num_read = min(self.num_read, known * PAGE, sequence.length - 1)

    def note_read(self) -> None:
        """All committed rows are read, in the pages that there are."""
        self.num_read, self._pages = self.sequence.length, self.sequence.pages.copy()
