"""How far a draft may go, and who drafts for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from paceline.engine.request import Drafter, Request
from paceline.engine.tree import MAX_DEPTH


class Room(NamedTuple):
    """How large a request's draft tree may be."""

    nodes: int
    depth: int


def room(request: Request, most: int) -> Room:
    """At most `most` nodes. The last token of a request is never a draft, and no row stands beyond the context."""
    depth = min(MAX_DEPTH, request.num_remaining - 1)
    return Room(most if depth > 0 else 0, depth)


def distinct(requests: Sequence[Request]) -> list[Drafter]:
    """The requests' drafters, each once, in order."""
    return list({id(d): d for request in requests for d in request.drafters}.values())
