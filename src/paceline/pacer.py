"""How many draft nodes each request may bring to the next step.

For now a fixed number of rows, shared among the requests that the forward can take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.request import Request


@dataclass(frozen=True)
class FixedPacer:
    """The same budget for every request and step; `budget` draft nodes make `budget + 1` rows."""

    budget: int = 7

    def budgets(self, requests: Sequence[Request], most: int) -> list[int]:
        """Draft nodes per request: at most `most`, and none for a request whose next token is its last."""
        return [min(self.budget, most) if request.num_remaining > 1 else 0 for request in requests]
