"""Deadlines: what a request has left, and whether that is enough for its first token."""

from __future__ import annotations

import math

from paceline.engine.request import Request
from paceline.errors import DeadlineError


def seconds_left(request: Request, now: float) -> float:
    """Until a request's deadline; endless if it has none."""
    return math.inf if request.terms.deadline is None else request.terms.deadline - now


def check_first_token(needed: float, given: float) -> None:
    """See that a first token that takes so many seconds comes in time.

    Raises:
        DeadlineError: it does not.
    """
    if needed > given:
        given_ms, needed_ms = 1000 * max(given, 0.0), 1000 * needed
        raise DeadlineError(
            f"the deadline is {given_ms:.0f} ms away; the first token would take {needed_ms:.0f} ms or more"
        )


def missed() -> DeadlineError:
    """What a request is told whose deadline came before its first token."""
    return DeadlineError("the deadline came before the first token: nothing was decoded")
