"""Which requests take part in the next step. Knows nothing of models; imports no torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from paceline.engine.request import Request


class Scheduler:
    """First come, first served: a waiting request is admitted as soon as its cache can be set aside whole.

    A request that runs is never preempted, so nothing has to be rebuilt.
    """

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.running: list[Request] = []
        self._waiting: deque[Request] = deque()

    @property
    def is_idle(self) -> bool:
        """True if nothing runs or waits."""
        return not self.running and not self._waiting

    @property
    def waiting(self) -> list[Request]:
        """Those that have not begun, in order of arrival."""
        return list(self._waiting)

    def __contains__(self, request: Request) -> bool:
        return request in self.running or request in self._waiting

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def admit(self, may_start: Callable[[Request], bool]) -> Iterator[Request]:
        """Requests that begin now, in order of arrival; `may_start` says whether there is cache for one.

        One after the other: what one has read may be what the next one begins with.
        """
        while self._waiting and len(self.running) < self.max_running and may_start(self._waiting[0]):
            request = self._waiting.popleft()
            self.running.append(request)
            yield request

    def remove(self, request: Request) -> None:
        """Forget a request, running or waiting."""
        if request in self.running:
            self.running.remove(request)
        if request in self._waiting:
            self._waiting.remove(request)
