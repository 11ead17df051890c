"""A fixed number of draft nodes at every step: the pacing that others do, to compare with and to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.engine.ports import Ask, Budget, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree, merge
from paceline.pacing.plan import distinct, max_depth


@dataclass(frozen=True)
class FixedPacer(Pacer):
    """The same budget for every request and step; `budget` draft nodes make `budget + 1` rows."""

    budget: int = 7

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""

    def arrive(self, request: Request) -> None:
        """See `Pacer`."""

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""

    def resume(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """See `Pacer`: each drafter is asked every time, for trees as deep as they have nodes."""
        share = min(self.budget, budget.total // len(requests))
        sizes = [min(share, most) for most in budget.each]
        depths = [max_depth(request) for request in requests]
        able = [i for i in range(len(requests)) if min(sizes[i], depths[i]) > 0]
        proposals: list[list[DraftTree]] = [[] for _ in requests]
        for drafter in distinct([requests[i] for i in able]):
            asked = [i for i in able if drafter in requests[i].drafters]
            limits = [DraftLimits(sizes[i], min(depths[i], sizes[i])) for i in asked]
            trees = ask(drafter, [requests[i] for i in asked], limits)
            for i, tree in zip(asked, trees, strict=True):
                proposals[i].append(tree)
        return [merge(*one) for one in zip(proposals, sizes, depths, strict=True)]

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""

    def finish(self, request: Request) -> None:
        """See `Pacer`."""

    def rest(self) -> None:
        """See `Pacer`."""

    def close(self) -> None:
        """See `Pacer`."""
