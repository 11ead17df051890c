"""What a model decided among choices, or why it did not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from paceline.deciding.choices import likeliest

_BAR = 24  # characters


@dataclass(frozen=True)
class Decision:
    """A choice, or an abstention.

    Attributes:
        choice: what was chosen; None where it abstains.
        probabilities: of each choice, given that one of them is said; at a calibration's temperature, if one is given.
        logprobs: of each choice as a text, in nats, at temperature 1, whatever else may be said.
        threshold: the least probability of a choice; 0 where it never abstains.
        reason: why it was chosen, or why nothing was.
    """

    choice: str | None
    probabilities: Mapping[str, float]
    logprobs: Mapping[str, float]
    threshold: float
    reason: str

    @property
    def best(self) -> str:
        """The likeliest choice, whether it was chosen or not."""
        return likeliest(self.probabilities)

    @property
    def probability(self) -> float:
        """Of the likeliest choice."""
        return self.probabilities[self.best]

    @property
    def mass(self) -> float:
        """How likely the model is to say any of the choices at all; where it is small, ask in another way."""
        return math.fsum(math.exp(value) for value in self.logprobs.values())

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        told = {"choice": self.choice, "probabilities": dict(self.probabilities), "logprobs": dict(self.logprobs)}
        return {**told, "threshold": self.threshold, "reason": self.reason}

    def __str__(self) -> str:
        width = max(map(len, self.probabilities))
        lines = [f"{self._headline}: {self.reason}"]
        for name, probability in self._ranked():
            bar = "█" * round(_BAR * probability)
            lines.append(f"  {name:<{width}}  {100 * probability:5.1f} %  {bar}".rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """The choices in a notebook, the likeliest first, each with a bar."""
        rows = "".join(_row(name, probability, name == self.choice) for name, probability in self._ranked())
        return f"<div><b>{escape(self._headline)}</b>: {escape(self.reason)}<table>{rows}</table></div>"

    @property
    def _headline(self) -> str:
        return "abstains" if self.choice is None else self.choice

    def _ranked(self) -> list[tuple[str, float]]:
        return sorted(self.probabilities.items(), key=lambda item: -item[1])


def _row(name: str, probability: float, is_chosen: bool) -> str:
    share = f"{100 * probability:.1f}"
    label = f"<b>{escape(name)}</b>" if is_chosen else escape(name)
    bar = f'<div style="background:#009E7399;height:.8em;width:{share}%"></div>'
    return f'<tr><td>{label}</td><td>{share} %</td><td style="width:12em">{bar}</td></tr>'
