"""Reading prompts, and continuations that are given, a chunk at a time beside those that decode.

Knows nothing of drafts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile

from paceline.engine.continuations import Continuations
from paceline.engine.ports import Target
from paceline.engine.rates import PAGE_ROWS, Rates
from paceline.engine.request import Request
from paceline.engine.scheduler import Scheduler

HasRoom = Callable[[Request, int], bool]


class PromptReader:
    """Reads on in prompts, and keeps what that took.

    Args:
        target: the model.
        scheduler: says whose turn it is.
        rates: what chunks take.
        clock: seconds.
        has_room: makes room in the cache for so many rows of a request; False if it has had to leave.
    """

    def __init__(
        self, target: Target, scheduler: Scheduler, rates: Rates, clock: Callable[[], float], has_room: HasRoom
    ) -> None:
        self._target, self._scheduler, self._rates, self._clock = target, scheduler, rates, clock
        self._has_room = has_room
        self._seconds: dict[int, float] = {}  # by request id, since they were taken
        self._step_rows = 0  # that this step has time for

    def read(self) -> Iterator[tuple[Request, Exception | None]]:
        """Read a page, or what a step leaves time for; those that have been read whole, and those that failed."""
        self._step_rows = left = self._rates.rows_beside_a_step() if self._scheduler.decoding else PAGE_ROWS
        while left > 0 and (request := self._scheduler.next_to_read(self.num_unread)) is not None:
            try:
                left -= self._read_on(request, left)
            except Exception as error:
                yield request, error
                continue
            if request in self._scheduler.reading and self.num_unread(request) == 0:
                yield request, None

    def num_unread(self, request: Request) -> int:
        """Rows of its prompt, and of continuations behind it, that are still to be read."""
        return self._target.num_unread(request) + request.num_given

    def take_seconds(self, request: Request) -> float:
        """What reading a request took, since this was asked last."""
        return self._seconds.pop(request.id, 0.0)

    def _read_on(self, request: Request, max_rows: int) -> int:
        """Read a chunk of one prompt, or of what is given behind it; how many rows it had."""
        if self.num_unread(request) == 0:
            return 0
        started, is_prompt = self._clock(), self._target.num_unread(request) > 0
        num_rows = self._target.read(request, max_rows) if is_prompt else self._read_given(request, max_rows)
        seconds = self._clock() - started
        if num_rows and is_prompt:
            self._rates.learn_chunk(num_rows, seconds)
        request.stats.prefill_seconds += seconds
        self._seconds[request.id] = self._seconds.get(request.id, 0.0) + seconds
        return num_rows

    def _read_given(self, request: Request, max_rows: int) -> int:
        """Read a part of what is given behind a prompt: as much as a step has time for, in this step or the next."""
        given, most = request.given, min(self._step_rows, self._target.row_counts[-1])
        assert given is not None
        if max_rows < self._step_rows or not self._has_room(request, given.least_rows):
            return max_rows
        tree = given.tree(self._target.grow(request, given.num_rows(most)))
        [logits] = self._target.score([(request, tree)])
        given.take(logits)
        self._move(request, given, most)
        return len(logits)

    def _move(self, request: Request, given: Continuations, max_rows: int) -> None:
        """Commit what the rest hangs behind, or go back: then the tokens up to where it does are read as a prompt's."""
        move = given.move(max_rows) if given.num_unread else None
        if move is None:
            return
        if move.rows is not None:
            request.tokens += move.tokens
            self._target.commit(request, move.rows)
            return
        tokens = [*request.tokens[: request.num_prompt_tokens], *move.tokens]
        pairs = zip(request.tokens[:-1], tokens[:-1], strict=False)
        if not self._target.rewind(request, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))):
            self._target.free(request)
            self._scheduler.preempt(request)
        request.tokens[:] = tokens
