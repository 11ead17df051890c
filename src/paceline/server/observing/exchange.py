"""One HTTP request from its first byte to the last of its response: what logs, traces and metrics say of it.

The endpoint's task finds the exchange that it is in by a context variable.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from paceline.engine.request import Request

MAX_ID = 128
CLIENT_GONE = 499


@dataclass(slots=True, eq=False)
class Exchange:
    """An HTTP request, and the requests to the engine that it became."""

    id: str
    method: str
    path: str
    headers: Mapping[str, str]
    arrived: float = field(default_factory=time.perf_counter)
    samples: list[Request] = field(default_factory=list)
    tenant: str = ""  # who asked
    num_ignored: int = 0  # fields
    status: int = 0  # 0 until the response begins
    is_complete: bool = False
    is_abandoned: bool = False  # the client went before the response was complete
    finished: float | None = None  # the last byte of the response

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return (self.finished or time.perf_counter()) - self.arrived

    @property
    def outcome(self) -> int:
        """The status that counts: 499 where nobody has read the response to its end."""
        return self.status if self.is_complete and not self.is_abandoned else CLIENT_GONE


CURRENT: ContextVar[Exchange | None] = ContextVar("paceline_exchange", default=None)


def current_id(otherwise: str = "") -> str:
    """The id of the HTTP request that this is done for."""
    exchange = CURRENT.get()
    return exchange.id if exchange else otherwise


def note_ignored(num_fields: int) -> None:
    """Note that the HTTP request of this task had fields which were ignored."""
    exchange = CURRENT.get()
    if exchange is not None:
        exchange.num_ignored += num_fields


def request_id(given: str | None) -> str:
    """A client's own id for a request, if it is a sane one, or a fresh one."""
    if given and len(given) <= MAX_ID and given.isascii() and given.isprintable():
        return given
    return f"req-{secrets.token_hex(16)}"
