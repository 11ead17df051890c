"""How many draft nodes each request may bring to the next step.

For now a fixed number of rows, shared among the requests that the forward can take; where rows are dear, few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paceline.request import Request

_MOST = 7  # draft nodes; more seldom pay without knowing the text
_WORTH = 1.6  # times the cost of one row: about what a step must earn in tokens to break even


def affordable_budget(row_milliseconds: Mapping[int, float]) -> int:
    """The most draft nodes, at least 1 and at most 7, whose forward costs at most 1.6 times one row's.

    `row_milliseconds` maps row counts, measured at load, to milliseconds.
    """
    one = row_milliseconds[min(row_milliseconds)]
    rows = max(count for count, cost in row_milliseconds.items() if cost <= _WORTH * one)
    return min(max(rows - 1, 1), _MOST)


@dataclass(frozen=True)
class FixedPacer:
    """The same budget for every request and step; `budget` draft nodes make `budget + 1` rows."""

    budget: int = _MOST

    def budgets(self, requests: Sequence[Request], most: int) -> list[int]:
        """Draft nodes per request: at most `most`, and none for a request whose next token is its last."""
        return [min(self.budget, most) if request.num_remaining > 1 else 0 for request in requests]
