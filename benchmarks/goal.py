"""A line to reach, and the little that files of them share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.bench.timing import Ratio

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line to reach: what, the figure measured, and whether it is good enough."""

    text: str
    figure: str
    is_reached: bool

    def __str__(self) -> str:
        return f"{'reached' if self.is_reached else 'not reached'}: {self.text}: {self.figure}"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"text": self.text, "figure": self.figure, "reached": self.is_reached}


def print_goals(goals: Sequence[Goal]) -> None:
    """The lines, one below the other."""
    for goal in goals:
        print(goal)


def interval(found: Content) -> str:
    """A ratio that was written as JSON, with its interval."""
    return str(Ratio(found["value"], found["low"], found["high"]))
