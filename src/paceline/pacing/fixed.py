"""A fixed number of draft nodes at every step: the pacing that others do, to compare with and to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.engine.ports import Ask, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree, merge
from paceline.pacing.plan import distinct, max_depth


@dataclass(frozen=True)
class FixedPacer(Pacer):
    """The same budget for every request and step; `budget` draft nodes make `budget + 1` rows."""

    budget: int = 7

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""

    def draft(self, requests: Sequence[Request], max_nodes: int, ask: Ask) -> list[DraftTree]:
        """See `Pacer`: each drafter is asked every time, for trees as deep as they have nodes."""
        budget = min(self.budget, max_nodes)
        depths = [max_depth(request) for request in requests]
        proposals: list[list[DraftTree]] = [[] for _ in requests]
        for drafter in distinct(requests) if budget > 0 else ():
            asked = [i for i, request in enumerate(requests) if depths[i] > 0 and drafter in request.drafters]
            limits = [DraftLimits(budget, min(depths[i], budget)) for i in asked]
            trees = ask(drafter, [requests[i] for i in asked], limits) if asked else []
            for i, tree in zip(asked, trees, strict=True):
                proposals[i].append(tree)
        return [merge(trees, budget, depth) for trees, depth in zip(proposals, depths, strict=True)]

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""

    def finish(self, request: Request) -> None:
        """See `Pacer`."""

    def rest(self) -> None:
        """See `Pacer`."""

    def close(self) -> None:
        """See `Pacer`."""
