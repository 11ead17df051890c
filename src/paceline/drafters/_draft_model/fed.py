"""What was asked of a draft model, and what has been fed to it beyond a request's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree

if TYPE_CHECKING:
    from paceline.model.decoder import Decoder
    from paceline.model.pool import CachedSequence

CONSIDERED = 8  # tokens among which belief is shared out


@dataclass(frozen=True)
class Shape:
    """How wide trees are: nodes extended at each level, and children of each of them."""

    width: int
    branch: int


class Fed(Protocol):
    """One request in the draft model's cache."""

    sequence: CachedSequence

    def nodes(self) -> tuple[Sequence[int], Sequence[int]]:
        """Tokens and parents of the nodes fed in the last proposal, in order; a parent is a place among them, or -1."""

    def clear(self) -> None:
        """Forget the nodes fed."""


class Asked(NamedTuple):
    """A request for which a tree is wanted."""

    request: Request
    fed: Fed
    limits: DraftLimits


class Levels(Protocol):
    """Grows trees."""

    decoder: Decoder  # of the draft model

    def take_up(self, request: Request, sequence: CachedSequence) -> Fed:
        """A request, whose cache is `sequence`."""

    def num_tokens(self, request: Request, fed: Fed) -> int:
        """How many tokens the request's text has for the draft model; none if there is nothing for it to go by."""

    def grow(self, asked: Sequence[Asked], shape: Shape, source: str) -> list[DraftTree]:
        """One tree each, at least one request; all of them share each forward of the draft model."""


def fed_path(fed: Fed, tokens: Sequence[int]) -> list[int]:
    """Places of the fed nodes that spell `tokens` from the root, as far as they go."""
    path: list[int] = []
    places = {edge: place for place, edge in enumerate(zip(*fed.nodes(), strict=True))}
    for token in tokens:
        place = places.get((token, path[-1] if path else -1))
        if place is None:
            break
        path.append(place)
    return path


def bucket_of(score: float, depth: int) -> int:
    """What a node's success depends on: how sure the draft model is, and how far from the target's own text."""
    return 8 * min((depth - 1).bit_length(), 3) + min(int(score * 8), 7)
