"""When a request's answer is due: the body's `deadline_ms` and the header `x-deadline-ms`, both from its arrival.

The header is for gateways and for clients whose bodies are not theirs to change. Of both the earlier one holds: so
neither is missed.
"""

from __future__ import annotations

import math
import time

from paceline.server.errors import ApiError
from paceline.server.observing.exchange import CURRENT

HEADER = "x-deadline-ms"
_LEAST = 1e-6  # milliseconds, where nothing is left: the engine refuses it, and says so


def moment_of(milliseconds: float | None) -> float | None:
    """The end of the HTTP request of this task, in seconds of the engine's clock; None if there is none.

    Args:
        milliseconds: what its body says.

    Raises:
        ApiError: its header is no number of milliseconds above 0.
    """
    exchange = CURRENT.get()
    given = exchange.headers.get(HEADER) if exchange else None
    told = [one for one in (milliseconds, _read(given)) if one is not None]
    arrived = exchange.arrived if exchange else time.perf_counter()
    return arrived + min(told) / 1e3 if told else None


def milliseconds_left(moment: float | None) -> float | None:
    """From now to a moment, above 0; None if there is none."""
    return None if moment is None else max((moment - time.perf_counter()) * 1e3, _LEAST)


def _read(given: str | None) -> float | None:
    if given is None:
        return None
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise ApiError(400, f"{HEADER} is {given[:40]!r}; allowed: a number of milliseconds above 0", HEADER)
    return value
