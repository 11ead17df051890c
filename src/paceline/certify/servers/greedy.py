"""Greedy texts side by side: are they equal, where do they part, and what does a baseline that wavers allow to say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import comb
from typing import Any

from paceline.certify.servers.asking import Chance, Reply

SHOWN = 40  # characters of a text around the place where it parts
WAVERING_ALARM = 1e-3  # the chance that a faultless candidate of a wavering baseline is called different


@dataclass(frozen=True)
class Greedy:
    """The replies to a prompt at temperature 0: two of each server, asked with different seeds; None: no answer."""

    prompt: int
    baseline: tuple[Reply | None, Reply | None]
    candidate: tuple[Reply | None, Reply | None]

    @property
    def status(self) -> str:
        """Whether the candidate's texts are the baseline's; "unstable" if that has two, "missing" if one is missing."""
        first, again = self.baseline
        if first is None or again is None or None in self.candidate:
            return "missing"
        if first.text != again.text:
            return "unstable"
        return "equal" if self.other is None else "different"

    @property
    def other(self) -> Reply | None:
        """The candidate's first reply whose text is not the baseline's first; None if there is none."""
        first = self.baseline[0]
        others = [one for one in self.candidate if one is not None and first is not None and one.text != first.text]
        return others[0] if others else None


@dataclass(frozen=True)
class Parting:
    """Where two texts part."""

    prompt: int
    character: int
    before: str  # the end of what they share
    baseline: str  # how each goes on; empty where it has ended
    candidate: str
    token: int | None = None  # of the baseline's text, if it tells its tokens
    baseline_margin: float | None = None  # of the two likeliest tokens there, in log probability
    candidate_margin: float | None = None


@dataclass(frozen=True)
class Steadiness:
    """Whether a server repeats itself."""

    same: int
    asked: int

    @property
    def is_steady(self) -> bool:
        """True if it always did."""
        return self.same == self.asked


def part(prompt: int, baseline: str, candidate: str) -> Parting:
    """Where the texts part; they are different."""
    pairs = enumerate(zip(baseline, candidate, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(baseline), len(candidate)))
    before = baseline[max(place - SHOWN, 0) : place]
    return Parting(prompt, place, before, baseline[place : place + SHOWN], candidate[place : place + SHOWN])


def margin_at(chances: Sequence[Chance] | None, text: str, character: int) -> tuple[int | None, float | None]:
    """The token that a character of a text is in, and its margin; None where its tokens do not make up the text."""
    if chances is None or "".join(chance.token for chance in chances) != text:
        return None, None
    ends = accumulate(len(chance.token) for chance in chances)
    index = next((i for i, end in enumerate(ends) if character < end), None)
    return (index, chances[index].margin) if index is not None else (None, None)


def steadiness(pairs: Sequence[tuple[Reply | None, Reply | None]]) -> Steadiness:
    """How often a server's two replies have the same text."""
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    return Steadiness(sum(one.text == other.text for one, other in both), len(both))


def wavering_p(found: Sequence[Greedy]) -> float:
    """Chance that a candidate like the baseline differs from it so much oftener than it from itself, or more.

    Were the candidate's text and the baseline's second one draws of the same law, each prompt in which just one of them
    equals the baseline's first would be a fair coin (an exact sign test, one-sided).
    """
    worse = better = 0
    for one in found:
        first, again, other = one.baseline[0], one.baseline[1], one.candidate[0]
        if first is not None and again is not None and other is not None:
            worse += again.text == first.text != other.text
            better += again.text != first.text == other.text
    total = worse + better
    return float(sum(comb(total, k) for k in range(worse, total + 1)) / 2**total)


def greedy_as_dict(found: Sequence[Greedy], partings: Sequence[Parting]) -> dict[str, Any]:
    """Counts, places, and whether the candidate is to be called equal; ready for JSON."""
    counts = dict.fromkeys(("equal", "different", "unstable", "missing"), 0)
    for one in found:
        counts[one.status] += 1
    own = {"baseline": steadiness([one.baseline for one in found])}
    own["candidate"] = steadiness([one.candidate for one in found])
    p_value = wavering_p(found)
    is_different = counts["different"] > 0 if own["baseline"].is_steady else p_value < WAVERING_ALARM
    return {
        **counts,
        "prompts": len(found),
        "is_different": is_different,
        "is_steady": own["baseline"].is_steady,
        "steadiness": {name: {"same": s.same, "asked": s.asked} for name, s in own.items()},
        "wavering_p_value": p_value,
        "other_ends": sum(_ends_otherwise(one) for one in found),
        "partings": [vars(parting) for parting in partings],
    }


def _ends_otherwise(one: Greedy) -> bool:
    """Whether equal texts have different finish reasons."""
    first, other = one.baseline[0], one.candidate[0]
    return (
        one.status == "equal" and first is not None and other is not None and first.finish_reason != other.finish_reason
    )
