"""Choices as texts: how each may be spelt, and the probability that a model says it, by that of its spellings.

What a model says belongs to the longest spelling that it begins with. So of "New" and "New York" the first has the
probability of its spelling less that of the second; those of all choices add up to no more than 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paceline.errors import RequestError

Path = tuple[int, ...]
_ALLOWED = "a text, or a list of the texts that stand for it"


@dataclass(frozen=True)
class Choice:
    """One of the answers: its name, and the texts that stand for it."""

    name: str
    spellings: tuple[str, ...]


def read_choices(choices: Any) -> list[Choice]:
    """Choices as callers write them: a text, with and without a space before it, or a list of its spellings.

    Raises:
        RequestError: fewer than two, something else, or a name or spelling that two of them have.
    """
    if isinstance(choices, str | Mapping) or not hasattr(choices, "__iter__"):
        raise RequestError(f"choices is {choices!r}; allowed: a list of at least two")
    found = [_read(f"choices[{i}]", choice) for i, choice in enumerate(choices)]
    if len(found) < 2:
        raise RequestError(f"choices has {len(found)}; allowed: at least two")
    owners: dict[str, str] = {}
    for choice in found:
        for text in (choice.name, *choice.spellings):
            if owners.setdefault(text.strip(), choice.name) != choice.name:
                raise RequestError(f"{text!r} stands for {owners[text.strip()]!r} and {choice.name!r}; allowed: one")
    if len({choice.name for choice in found}) < len(found):
        raise RequestError("a choice stands there twice; allowed: once")
    return found


def _read(name: str, choice: Any) -> Choice:
    if isinstance(choice, str):
        bare = choice.lstrip()
        spellings = [choice, *(text for text in (bare, " " + bare) if text != choice)]
    elif hasattr(choice, "__iter__") and not isinstance(choice, Mapping):
        spellings = list(choice)
    else:
        spellings = []
    if not spellings or not all(isinstance(text, str) and text.strip() for text in spellings):
        raise RequestError(f"{name} is {choice!r}; allowed: {_ALLOWED}, none of them blank")
    return Choice(spellings[0].strip(), tuple(dict.fromkeys(spellings)))


def masses(owners: Mapping[Path, str], logprobs: Mapping[Path, float], names: Sequence[str]) -> dict[str, float]:
    """The log-probability, in nats, of what a model may say for each choice.

    Args:
        owners: which choice each spelling, as tokens, is one of.
        logprobs: of each spelling, whatever follows it.
        names: of the choices.
    """
    longest = max(logprobs.values())
    shares = {path: math.exp(value - longest) if value > -math.inf else 0.0 for path, value in logprobs.items()}
    totals = dict.fromkeys(names, 0.0)
    for path, share in shares.items():
        totals[owners[path]] += share
        above = next((path[:end] for end in range(len(path) - 1, 0, -1) if path[:end] in owners), None)
        if above is not None:
            totals[owners[above]] -= share
    return {name: longest + math.log(total) if total > 0.0 else -math.inf for name, total in totals.items()}


def likeliest(values: Mapping[str, float]) -> str:
    """The choice of the largest probability, or log-probability; of equals the first."""
    return max(values, key=lambda name: values[name])


def tempered(logprobs: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Probabilities of choices, given that one of them is said, at a temperature.

    Raises:
        RequestError: none of them can be said.
    """
    highest = max(logprobs.values())
    if highest == -math.inf:
        raise RequestError("the model gives none of the choices any probability")
    weights = {name: math.exp((value - highest) / temperature) for name, value in logprobs.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
