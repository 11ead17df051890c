"""Reading prompts a chunk at a time, beside those that decode. Knows nothing of drafts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from paceline.engine.ports import Target
from paceline.engine.rates import PAGE_ROWS, Rates
from paceline.engine.request import Request
from paceline.engine.scheduler import Scheduler


class PromptReader:
    """Reads on in prompts, and keeps what that took.

    Args:
        target: the model.
        scheduler: says whose turn it is.
        rates: what chunks take.
        clock: seconds.
    """

    def __init__(self, target: Target, scheduler: Scheduler, rates: Rates, clock: Callable[[], float]) -> None:
        self._target, self._scheduler, self._rates, self._clock = target, scheduler, rates, clock
        self._seconds: dict[int, float] = {}  # by request id, since they were taken

    def read(self) -> Iterator[tuple[Request, Exception | None]]:
        """Read a page, or what a step leaves time for; those that have been read whole, and those that failed."""
        left = self._rates.rows_beside_a_step() if self._scheduler.decoding else PAGE_ROWS
        while left > 0 and (request := self._scheduler.next_to_read(self._target.num_unread)) is not None:
            try:
                left -= self._read_on(request, left)
            except Exception as error:
                yield request, error
                continue
            if self._target.num_unread(request) == 0:
                yield request, None

    def take_seconds(self, request: Request) -> float:
        """What reading a request took, since this was asked last."""
        return self._seconds.pop(request.id, 0.0)

    def _read_on(self, request: Request, max_rows: int) -> int:
        """Read a chunk of one prompt; how many rows it had."""
        if self._target.num_unread(request) == 0:
            return 0
        started = self._clock()
        num_rows = self._target.read(request, max_rows)
        seconds = self._clock() - started
        if num_rows:
            self._rates.learn_chunk(num_rows, seconds)
        request.stats.prefill_seconds += seconds
        self._seconds[request.id] = self._seconds.get(request.id, 0.0) + seconds
        return num_rows
