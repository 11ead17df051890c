"""The port between the engine and whoever paces it: who drafts for the next step, and which drafts get a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from paceline.request import Request
from paceline.tree import MAX_DEPTH
from paceline.types import Drafter, DraftTree, StepOutcome, Target

# Has a drafter propose; a drafter that fails stops proposing, and is left out of the requests from then on.
Ask = Callable[[Drafter, Sequence[Request], Sequence[int]], Iterator[list[DraftTree]]]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """When a step's stages began, in seconds of the engine's clock."""

    drafting: float
    scoring: float
    committing: float
    observing: float


class Pacing(Protocol):
    """Decides who drafts and how far. It sees every step of every request."""

    def meet(self, drafter: Drafter, target: Target) -> None:
        """Get to know a drafter that has joined the engine, before any request."""

    def begin(self, request: Request, prefill: float) -> None:
        """Take up a request whose prompt is in the cache; reading it took `prefill` seconds."""

    def draft(self, requests: Sequence[Request], most: int, ask: Ask) -> list[DraftTree]:
        """One tree per request, of at most `most` nodes; empty ones where drafting does not pay."""

    def settle(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn from a step; `times.observing` is when the drafters began to."""

    def end(self, request: Request) -> None:
        """Forget a request; also one that never began."""


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
