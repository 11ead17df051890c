"""Where rows end: what of transformers' stopping criteria the engine knows itself, and what is asked at each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paceline.accelerating.handing_over import HandOver
from paceline.accelerating.processors import is_known, several_rows

_BY_ROW = {"MaxLengthCriteria", "MaxTimeCriteria", "StopStringCriteria", "EosTokenCriteria"}
_OF_THE_ENGINE = {"MaxLengthCriteria", "EosTokenCriteria"}


@dataclass(frozen=True)
class Ends:
    """What ends a row.

    Attributes:
        tokens: those that end it.
        max_length: tokens of a row, its padding counted.
        asked: the criteria that are asked at each token.
        pads: whether rows that have ended are padded; else transformers goes on with them to the last one's end.
    """

    tokens: frozenset[int]
    max_length: int
    asked: list[Any]
    pads: bool


def ends_of(criteria: Sequence[Any], num_rows: int) -> Ends:
    """What prepared criteria come to, each called with one row at a time.

    Raises:
        HandOver: one may look at several rows at once, or rows would go on behind their ends.
    """
    for one in criteria:
        if num_rows > 1 and not is_known(one, _BY_ROW):
            raise several_rows("stopping_criteria", one, num_rows)
    own = {name: [c for c in criteria if type(c).__name__ == name and is_known(c, {name})] for name in _OF_THE_ENGINE}
    tokens = frozenset(int(t) for c in own["EosTokenCriteria"] for t in c.eos_token_id)
    max_length = min(c.max_length for c in own["MaxLengthCriteria"])
    asked = [c for c in criteria if not any(c is known for kind in own.values() for known in kind)]
    pads = any(hasattr(c, "eos_token_id") for c in criteria)
    by_row = [c for c in asked if type(c).__name__ != "MaxTimeCriteria"]
    if num_rows > 1 and not pads and by_row:
        why = "without an end-of-sequence token, rows go on behind their ends until the last one's"
        raise HandOver(f"stopping_criteria {type(by_row[0]).__name__}", why)
    return Ends(tokens, max_length, asked, pads)
