"""Who waits, whose prompt is read on, who decodes. Knows nothing of models or clocks; imports no torch."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator

from paceline.engine.request import Request

PATIENCE = 30.0  # seconds: a request without a deadline waits as if that were its own
_AGEING = 4  # of so many chunks that are read, one is of the prompt that has waited longest


class Scheduler:
    """Waiting requests come in the order of their deadlines, and none overtakes another that there is no room for.

    One without a deadline counts as having one `PATIENCE` after it came: so nobody waits for ever, and among those
    without it is first come, first served. One that was preempted goes before all.
    """

    def __init__(self, max_running: int) -> None:
        self.max_running = max_running
        self.decoding: list[Request] = []
        self.reading: list[Request] = []  # their prompts are not in the cache yet; who was served longest ago first
        self._preempted: list[Request] = []  # who has come first, first
        self._waiting: list[Request] = []  # by due time
        self._num_chunks = 0

    @property
    def running(self) -> list[Request]:
        """Those that hold cache."""
        return [*self.decoding, *self.reading]

    @property
    def waiting(self) -> list[Request]:
        """Those that hold no cache, in the order in which they will."""
        return [*self._preempted, *self._waiting]

    @property
    def num_waiting(self) -> int:
        """How many wait."""
        return len(self._preempted) + len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """True if nothing runs or waits."""
        return not (self.decoding or self.reading or self._preempted or self._waiting)

    def __contains__(self, request: Request) -> bool:
        return any(request in queue for queue in self._queues)

    def add(self, request: Request) -> None:
        """Queue a request."""
        insort(self._waiting, request, key=due)

    def admit(self, may_start: Callable[[Request], bool]) -> Iterator[Request]:
        """Requests whose prompts are read from now on; `may_start` sets cache aside, or says that one must wait.

        It may also have removed the request, which then holds up nobody.
        """
        while len(self.decoding) + len(self.reading) < self.max_running:
            queue = self._preempted or self._waiting
            if not queue:
                return
            request = queue[0]
            if may_start(request):
                queue.remove(request)
                self.reading.append(request)
                yield request
            elif request in queue:
                return

    def next_to_read(self, num_unread: Callable[[Request], int]) -> Request | None:
        """In whose prompt to read on: of the earliest deadline, then the shortest rest; None if all have been read.

        Every fourth chunk goes to the prompt that has waited longest for one. So of P prompts each gets a chunk in 4P.
        """
        if not self.reading:
            return None
        self._num_chunks += 1
        if self._num_chunks % _AGEING == 0:
            chosen = self.reading[0]
        else:
            chosen = min(self.reading, key=lambda request: (_deadline(request), num_unread(request)))
        self.reading.remove(chosen)
        self.reading.append(chosen)
        return chosen

    def has_read(self, request: Request) -> None:
        """A request's prompt is in the cache: it decodes from now on."""
        self.reading.remove(request)
        self.decoding.append(request)

    def victim(self, work: Callable[[Request], int]) -> Request:
        """Of those that run, whose least computed work is lost least: the last come where several are alike."""
        return min(reversed(self.running), key=work)

    def preempt(self, request: Request) -> None:
        """Have a running request wait again, before those that have not run."""
        self.remove(request)
        insort(self._preempted, request, key=lambda one: one.id)

    def ahead_of(self, request: Request) -> Iterator[Request]:
        """Those whose tokens will be read before a request's."""
        yield from self._preempted
        yield from (other for other in self.reading if due(other) <= due(request))
        for other in self._waiting:
            if due(other) > due(request):
                return
            if other is not request:
                yield other

    def remove(self, request: Request) -> None:
        """Forget a request, wherever it is."""
        for queue in self._queues:
            if request in queue:
                queue.remove(request)

    @property
    def _queues(self) -> tuple[list[Request], ...]:
        return self.decoding, self.reading, self._preempted, self._waiting


def due(request: Request) -> float:
    """By when a request should begin: its deadline; without one, `PATIENCE` after it came."""
    deadline = request.terms.deadline
    return (request.times.arrived or 0.0) + PATIENCE if deadline is None else deadline


def _deadline(request: Request) -> float:
    return math.inf if request.terms.deadline is None else request.terms.deadline
