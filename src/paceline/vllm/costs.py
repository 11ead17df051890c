"""What vLLM's steps cost, by the rows that they have: nothing is measured beforehand, every step teaches.

The first steps are plain. What is learnt is kept in the cache folder for the next process.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from paceline.pacing.costs import CostTable, ForwardCost
from paceline.pacing.measuring import ROW, completed, keep_costs, kept_costs

_GROWTH = 1.25  # between row counts that costs are kept of
_SETTLED = 3  # plain steps before the first draft


def row_counts(max_rows: int) -> list[int]:
    """Row counts that costs are kept of, ascending: all small ones, then fewer and fewer; the last is `max_rows`."""
    counts = [1]
    while counts[-1] < max_rows:
        counts.append(min(max(counts[-1] + 1, round(counts[-1] * _GROWTH)), max_rows))
    return counts


class OpeningCosts:
    """Costs until there are any.

    Args:
        file: where those of an earlier process are.
        max_rows: of a step that drafts.
    """

    def __init__(self, file: Path, max_rows: int) -> None:
        self._file, self._counts = file, row_counts(max_rows)
        self._seconds: list[float] = []  # of one row, by each plain step

    def learn(self, num_rows: int, seconds: float) -> CostTable | None:
        """Take in a plain step; the costs, once there were enough."""
        self._seconds.append(seconds / (1.0 + ROW * (num_rows - 1)))
        return self._table() if len(self._seconds) == _SETTLED else None

    def _table(self) -> CostTable:
        kept = kept_costs(self._file)
        known = {count: kept[count] for count in self._counts if count in kept}
        first: Mapping[int, ForwardCost] = {1: ForwardCost(min(self._seconds), 0.0)} | known
        return CostTable(completed(first, self._counts), known=known, keep=partial(keep_costs, self._file))
