"""Drafts by replaying what followed the end of the text earlier in the same request.

Prompt lookup (Saxena 2023) looks for one earlier place; here all places with the same end are found, the longest
agreements count most, and SuffixDecoding's frequencies (arXiv 2411.04975) among them make the draft branch where the
history branched. There is no index: one vectorised comparison of the text with its own end takes microseconds, while a
suffix automaton would have to read every prompt before it could pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._store import Hit, draft
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree

MAX_HITS = 16  # places looked at for one proposal: the longest agreements, of equals the newest
MANY = 128  # places whose agreement is measured: if there are more, the newest of those that agree further
LONGEST = 32  # agreement is not measured further


@register("suffix")
@dataclass(eq=False)
class SuffixDrafter(BaseDrafter):
    """Replays the request's own text: copies, edits, code, JSON, stories that repeat themselves."""

    min_match: int = option(2, ge=2, le=8, help="shortest repeated suffix to draft from, tokens")
    min_score: float = option(0.002, ge=0.0, le=1.0, help="do not propose nodes less likely than this to be reached")
    _texts: dict[int, OwnText] = field(default_factory=dict, init=False)

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self._texts[request.id] = text = OwnText()
        text.read(request.hints.source)
        return True

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._texts.pop(request.id, None)

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """What followed earlier places with the same end, likeliest first."""
        text = self._texts[request.id]
        text.read(request.tokens[text.size - len(request.hints.source) :])
        return draft(text, text.find(self.min_match), limits, self.min_score, self.name)


class OwnText:
    """One request's tokens, and where its end stood before. Memory: 4 to 8 bytes per token."""

    def __init__(self) -> None:
        self._tokens: NDArray[np.int32] = np.zeros(256, np.int32)
        self._size = 0

    @property
    def size(self) -> int:
        """Tokens read so far."""
        return self._size

    def read(self, tokens: Sequence[int]) -> None:
        """Take in what is new."""
        size = self._size + len(tokens)
        if size > len(self._tokens):
            larger = np.zeros(2 * size, np.int32)
            larger[: self._size] = self._tokens[: self._size]
            self._tokens = larger
        self._tokens[self._size : size] = tokens
        self._size = size

    def token(self, place: int) -> int:
        """The token at a place; -1 behind the end."""
        return int(self._tokens[place]) if place < self._size else -1

    def find(self, min_match: int) -> list[Hit]:
        """Places before which at least `min_match` tokens agree with the end: longest agreement first, then newest."""
        text, size = self._tokens[: self._size], self._size
        places, known = np.flatnonzero(text[:-1] == text[-1]) + 1, 1
        while known < min_match or (len(places) > MANY and known < LONGEST):
            longer = places[places > known]
            longer = longer[text[longer - known - 1] == text[size - known - 1 : size - known]]
            if known >= min_match and not len(longer):
                break
            places, known = longer, known + 1
        if not len(places):
            return []
        places = places[: -MANY - 1 : -1]
        agreements = _agreements(text, places)
        order = np.argsort(-agreements, kind="stable")[:MAX_HITS]
        return list(zip(places[order].tolist(), agreements[order].tolist(), strict=True))


def _agreements(text: NDArray[np.int32], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens before each place are those at the end of the text, up to `LONGEST`."""
    back = np.arange(1, min(LONGEST, len(text)) + 1)
    before = places[:, None] - back
    differs = (text[np.maximum(before, 0)] != text[len(text) - back]) | (before < 0)
    return np.where(differs.any(axis=1), differs.argmax(axis=1), len(back))
