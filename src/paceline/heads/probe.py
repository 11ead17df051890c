"""A head is tried before it drafts: which way of reading its files foresees most of what its target says.

Conventions differ by writer, and none changes a byte of what is decoded: so they are measured, not believed. What was
found is kept for the pair of head and target. A head that foresees next to nothing in every reading is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paceline.cache import cache_file, read_json, write_json
from paceline.errors import ModelError
from paceline.heads.overlap import Overlaps, overlaps
from paceline.heads.readings import Reading, Readings
from paceline.heads.seen import Seen

FLOOR = 0.2  # of the overlap at depth 1
_MARGIN = 0.005  # by which another reading must be better than the one before it
_ROUNDS = 2
_VERSION = 1  # of what is kept


@dataclass(frozen=True)
class Fit:
    """What was found out about a head and its target."""

    reading: Reading
    first: float  # the overlap at depth 1
    second: float  # at depth 2


def probe(readings: Readings, seen: Callable[[], Seen], about: dict[str, str]) -> Fit:
    """The best reading of a head, which it is read in from now on; found now, or at an earlier load of the same pair.

    `about` names the pair: the head's digest and the target's.

    Raises:
        ModelError: the head does not fit the target in any reading.
    """
    file = cache_file("heads", {**about, "version": _VERSION})
    kept = _kept(read_json(file), readings)
    if kept is not None:
        readings.read_all(kept.reading)
        return kept
    fit, found = _search(readings, seen())
    if not fit.first >= FLOOR:
        raise ModelError(_refusal(fit, found))
    write_json(file, {"reading": fit.reading, "first": fit.first, "second": fit.second})
    return fit


def _search(readings: Readings, seen: Seen) -> tuple[Fit, Overlaps]:
    """One thing after another is read in each of its ways, and left in the best; again where that changed anything."""
    best = overlaps(readings.head, seen)
    for _ in range(_ROUNDS):
        before = dict(readings.now)
        for name, (value, *others) in readings.options().items():
            for other in others:
                readings.read(name, other)
                found = overlaps(readings.head, seen)
                if found.score > best.score + _MARGIN:
                    best, value = found, other
            readings.read(name, value)
        if readings.now == before:
            break
    return Fit(dict(readings.now), best.first, best.second), best


def _refusal(fit: Fit, found: Overlaps) -> str:
    """Why a head is not taken."""
    said = f"the head foresees {fit.first:.0%} of what this target says; allowed: {FLOOR:.0%} or more."
    before, behind = found.shifted
    if max(before, behind) >= max(FLOOR, 2 * fit.first):
        which = "that it is given" if before > behind else "behind the one that is wanted"
        return f"{said} It says the token {which} ({max(before, behind):.0%}): its labels were one off in training"
    return (
        f"{said} Likely causes: it was trained for another target, another fine-tune of it, another tokenizer or chat "
        "template, or for one that is rotated or quantised; or some of its weights were never loaded"
    )


def _kept(value: Any, readings: Readings) -> Fit | None:
    """What a file says, if it is about such a head."""
    options = readings.options()
    try:
        reading = {name: value["reading"][name] for name in options}
        is_known = all(reading[name] in ways for name, ways in options.items() if name != "taps")
        fit = Fit(reading, float(value["first"]), float(value["second"]))
    except (TypeError, KeyError, ValueError):
        return None
    is_whole = is_known and set(reading["taps"]) <= readings.taps and len(reading["taps"]) == len(options["taps"][0])
    return fit if is_whole else None
