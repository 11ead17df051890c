"""The pacer as it decides on a slow machine: there a forward takes so long that drafts pay, whatever the model.

On a fast model pacing may well come to nothing, and then its outputs show nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from paceline.engine.ports import StepTimes, Target
from paceline.engine.request import StepOutcome
from paceline.pacing import AdaptivePacer, CostTable, ForwardCost
from paceline.testing import WrappedPacer

_FORWARD = 1.0  # seconds that every forward is made out to take longer, however many its rows


class SlowMachinePacer(WrappedPacer):
    """An adaptive pacer whose clock is put forward at each forward; all else takes the time it takes.

    So its cost table and what it sees of each step say the same, and nothing that it learns unsettles it.
    """

    def __init__(self, target: Target) -> None:
        self._shift = 0.0  # seconds
        costs = CostTable({count: ForwardCost(_FORWARD, 0.0) for count in target.row_counts})
        super().__init__(AdaptivePacer(costs, clock=self._now))

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        before = self._shift
        self._shift = after = before + _FORWARD
        slow = StepTimes(
            times.drafting + before, times.scoring + before, times.committing + after, times.observing + after
        )
        super().observe(outcomes, slow)

    def _now(self) -> float:
        return time.perf_counter() + self._shift
