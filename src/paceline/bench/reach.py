"""The lines to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reach:
    """One line to reach: what, the figure measured, and whether it is good enough."""

    text: str
    figure: str
    is_reached: bool

    def __str__(self) -> str:
        return f"{'reached' if self.is_reached else 'not reached'}: {self.text}: {self.figure}"

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"text": self.text, "figure": self.figure, "reached": self.is_reached}


def print_reach(reach: Sequence[Reach]) -> None:
    """The lines, one below the other."""
    for line in reach:
        print(f"Reach, {line}")
