"""Damage that a seed decides: to bytes, and to the values of a JSON object."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

_ODD = (None, True, "x", "", 0, -1, 1, 3, 31, 2**31, 2**40, 1 << 70, 1e308, -0.5, [], [1], {}, {"x": 1})


def mutated(raw: bytes, end: int, draw: random.Random) -> bytes:
    """Some bytes of the first `end` changed, or some left out, doubled, or a number put there that is far too large."""
    found = bytearray(raw)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at = draw.randrange(max(1, min(end, len(found))))
        how = draw.randrange(5)
        if how == 0:
            found[at : at + 1] = bytes(x ^ 1 << draw.randrange(8) for x in found[at : at + 1])
        elif how == 1:
            found[at : at + 1] = bytes([draw.randrange(256)])
        elif how == 2:
            del found[at : at + draw.choice((1, 4, 8, 40))]
        elif how == 3:
            found[at:at] = found[at : at + draw.choice((1, 4, 8, 40))]
        else:
            number = draw.choice((0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1, len(raw)))
            found[at : at + 8] = struct.pack("<Q", number)
    return bytes(found)


def other_values(text: str, draw: random.Random) -> str:
    """A JSON object of which some values, at any depth, are other ones, or are gone."""
    whole = json.loads(text)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        owner = draw.choice(_containers(whole))
        key = draw.choice(list(owner) if isinstance(owner, dict) else range(len(owner)))
        if draw.randrange(6) == 0:
            del owner[key]
        else:
            owner[key] = _other(owner[key], draw)
        if not whole:
            break
    return json.dumps(whole)


def _containers(value: Any) -> list[Any]:
    """All objects and arrays that hold something."""
    if not isinstance(value, dict | list) or not value:
        return []
    inner = value.values() if isinstance(value, dict) else value
    return [value, *(found for part in inner for found in _containers(part))]


def _other(value: Any, draw: random.Random) -> Any:
    """Something odd; of a number often a near one."""
    if isinstance(value, int | float) and draw.randrange(2):
        return draw.choice((value + 1, value - 1, -value, value * 2, value / 2, value * 1000003))
    return draw.choice(_ODD)
