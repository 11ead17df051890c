"""By which rule choices are decided: their temperature, and the threshold below which nothing is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.checks import number, string_or_strings
from paceline.deciding.calibration import Calibration, as_calibration
from paceline.deciding.choices import Choice, likeliest, read_choices, tempered
from paceline.deciding.decision import Decision
from paceline.errors import ConfigError

_SHARE = number(0.0, 1.0, "in [0, 1]")


@dataclass(frozen=True)
class Rule:
    """How a call decides."""

    choices: Sequence[Choice]
    threshold: float
    end: tuple[str, ...] | None  # what stands behind a choice; None: anything
    calibration: Calibration | None = None

    @property
    def names(self) -> list[str]:
        """Of the choices, in their order."""
        return [choice.name for choice in self.choices]

    def decide(self, logprobs: Mapping[str, float]) -> Decision:
        """The decision that log-probabilities of the choices lead to.

        Raises:
            RequestError: all of them are impossible.
        """
        probabilities = tempered(logprobs, self.calibration.temperature if self.calibration else 1.0)
        best = likeliest(probabilities)
        is_chosen = probabilities[best] >= self.threshold
        reason = self._reason(best, probabilities[best], is_chosen)
        return Decision(best if is_chosen else None, probabilities, logprobs, self.threshold, reason)

    def _reason(self, best: str, probability: float, is_chosen: bool) -> str:
        if not self.threshold:
            return f"the likeliest of {len(self.choices)} choices, with {100 * probability:.1f} %"
        side = "not below" if is_chosen else "below"
        reason = (
            f"{best!r} has {100 * probability:.1f} %, which is {side} the threshold of {100 * self.threshold:.1f} %"
        )
        return f"{reason}; {self.calibration.promise}" if self.calibration else reason


def read_rule(choices: Any, abstain: Any, calibration: Any, end: Any) -> Rule:
    """A call's rule, checked; see `LLM.decide`.

    Raises:
        ConfigError: a threshold or calibration that is none, or both.
        RequestError: choices that are none.
    """
    read = read_choices(choices)
    ends = None if end is None else string_or_strings("end", end)
    if calibration is None:
        return Rule(read, 0.0 if abstain is None else _SHARE("abstain", abstain), ends)
    if abstain is not None:
        raise ConfigError("abstain and calibration are given together; allowed: one, for each brings a threshold")
    known = as_calibration(calibration)
    if ends is not None and ends != known.end:
        raise ConfigError(f"end is {ends}; allowed by the calibration: {known.end}")
    return Rule(read, known.threshold, known.end, known)
