"""A drafter that hides the truth, as far as it has been told it, in trees of wrong tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from paceline.drafters.base import BaseDrafter
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder


class Told(BaseDrafter):
    """Knows whole sequences, and drafts some of what follows in the one that a request is at, beside wrong siblings."""

    name = "told"

    def __init__(self, vocab_size: int) -> None:
        self._texts: list[list[int]] = []
        self._vocab_size, self._rng = vocab_size, np.random.default_rng(0)

    def tell(self, texts: Iterable[Sequence[int]]) -> None:
        """Know these sequences from now on, and no others."""
        self._texts = [list(text) for text in texts]

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        builder = TreeBuilder(self.name)
        ahead = next((t[len(request.tokens) :] for t in self._texts if t[: len(request.tokens)] == request.tokens), [])
        node = -1
        for token in ahead[: min(limits.max_depth, limits.max_nodes // 2, int(self._rng.integers(1, 7)))]:
            wrong = int(self._rng.integers(0, self._vocab_size))
            if wrong != token:
                builder.add(node, wrong, 0.5, 0)
            node = builder.add(node, token, 0.9, 0)
        return builder.build()
