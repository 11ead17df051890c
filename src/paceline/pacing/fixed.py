"""A fixed number of draft nodes at every step: the pacing that others do, to compare with and to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from paceline.engine.ports import Ask, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import DraftTree, merge
from paceline.pacing.base import distinct, room


@dataclass(frozen=True)
class FixedPacer(Pacer):
    """The same budget for every request and step; `budget` draft nodes make `budget + 1` rows."""

    budget: int = 7

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""

    def draft(self, requests: Sequence[Request], most: int, ask: Ask) -> list[DraftTree]:
        """See `Pacer`: each drafter is asked every time, and goes on for as many stages as there are nodes."""
        rooms = [room(request, min(self.budget, most)) for request in requests]
        proposals: list[list[DraftTree]] = [[] for _ in requests]
        for drafter in distinct(requests):
            asked = [i for i, r in enumerate(requests) if rooms[i].nodes > 0 and drafter in r.drafters]
            trees: list[DraftTree] = []
            stages = ask(drafter, [requests[i] for i in asked], [rooms[i].nodes for i in asked]) if asked else ()
            for trees in islice(stages, self.budget):  # noqa: B007 - the last one is wanted
                pass
            for i, tree in zip(asked, trees, strict=False):
                proposals[i].append(tree)
        return [merge(trees, r.nodes, r.depth) for trees, r in zip(proposals, rooms, strict=True)]

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
