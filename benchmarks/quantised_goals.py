"""Goals of quantised forwards: what `step.py --quantize` measured, held against the lines to reach."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from goal import Content, Goal
from quantised_names import OURS, PLAIN, READING, THEIRS, name

from paceline.bench.timing import ratio

MIX = {"int4": "Q4_K_M", "int8": "Q8_0"}  # the file that decides
OF_READING = {"int4": 1.3, "int8": 1.15}
COSTS = {"int4": ((8, 1.5), (16, 2.5)), "int8": ((8, 1.3), (16, 2.0))}  # rows, and the most times one row
ONE_ROW, MANY_ROWS = 0.9, 0.5  # times llama.cpp's, in 4 bits
OF_PLAIN = 2.2  # times as fast as bfloat16, at 1 B in 4 bits


def quantised_step_goals(content: Content) -> list[Goal]:
    """The lines that the measured rows decide."""
    kind, rows, spent = content["quantize"], content["rows"], content["seconds"]
    mix = MIX[kind]
    ours, theirs = partial(name, OURS, mix), partial(name, THEIRS, mix)
    at_most = partial(_at_most, spent)
    lines = [at_most(f"{kind}, 1 row", ours(1), f"{READING} {mix}", OF_READING[kind], "the time of reading")]
    lines += [
        at_most(f"{kind}, {count} rows", ours(count), ours(1), limit, "1 row")
        for count, limit in COSTS[kind]
        if count in rows
    ]
    if kind == "int4":
        limits = {1: ONE_ROW} | dict.fromkeys((8, 16), MANY_ROWS)
        wanted = [(count, limit) for count, limit in limits.items() if count in rows]
        lines += [at_most(f"int4, {_rows(n)}", ours(n), theirs(n), limit, f"{THEIRS}'s {mix}") for n, limit in wanted]
        lines += [_plain(spent[PLAIN], spent[ours(1)])] if content["shape"] == "1b" else []
    return lines


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _at_most(spent: Content, what: str, one: str, other: str, limit: float, of: str) -> Goal:
    found = ratio(spent[one], spent[other])
    return Goal(f"{what}: at most {limit} x {of}", f"{found} x", found.value <= limit)


def _plain(plain: Sequence[float], ours: Sequence[float]) -> Goal:
    found = ratio(plain, ours)
    return Goal(f"int4, 1 row: at least {OF_PLAIN} x as fast as bfloat16", f"{found} x", found.value >= OF_PLAIN)
