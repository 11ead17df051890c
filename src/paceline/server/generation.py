"""The samples of one HTTP request while they are decoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from paceline.engine.request import Request, Token
from paceline.engine.thread import EngineThread, Job
from paceline.mailbox import Mailbox, News
from paceline.server.errors import ApiError


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step, or several that a slow reader has not taken, emitted for one sample."""

    index: int
    tokens: list[Token]
    is_last: bool

    @property
    def text(self) -> str:
        """The text of the tokens."""
        return "".join([token.text for token in self.tokens])


class Generation:
    """Requests in the engine's care. A request's `outbox` is the one slot where unread tokens gather."""

    def __init__(
        self,
        thread: EngineThread,
        requests: Sequence[Request],
        mailbox: Mailbox,
        seconds: float,
        finally_do: Callable[[], None],
    ) -> None:
        self.requests = list(requests)
        self._seconds, self._finally_do = seconds, finally_do
        self._thread = thread
        self._news = News(mailbox)
        self._jobs = [Job(request, self._news.wake, every_step=True) for request in requests]
        self._has_begun = False

    async def begin(self) -> None:
        """Hand the requests to the engine, and see whether it refuses one at once.

        Raises:
            PacelineError: it does; the others are given up.
        """
        try:
            self._submit()
            await asyncio.wrap_future(self._thread.ask(lambda: None))  # behind them in its queue
            for request in self.requests:
                if request.error is not None:
                    raise request.error
        except BaseException:
            self.give_up()
            raise

    async def pieces(self, silence: float) -> AsyncIterator[Piece | None]:
        """What is emitted, as it comes; None where nothing came for `silence` seconds.

        Raises:
            PacelineError: why one of the requests failed; the others are given up.
        """
        try:
            self._submit()
            running = dict(enumerate(self._jobs))
            end = time.monotonic() + self._seconds
            while running:
                left = end - time.monotonic()
                if left <= 0.0:
                    raise ApiError(408, f"the request takes too long; allowed: {self._seconds:g} seconds")
                if not await self._news.wait(min(silence, left)):
                    yield None
                for piece in [_taken(index, job) for index, job in running.items()]:
                    if piece.is_last:
                        del running[piece.index]
                    if piece.tokens or piece.is_last:
                        yield piece
        finally:
            self.give_up()

    async def finish(self) -> list[list[Token]]:
        """All tokens of each request, once all have ended."""
        tokens: list[list[Token]] = [[] for _ in self.requests]
        async for piece in self.pieces(silence=3600.0):
            if piece is not None:
                tokens[piece.index] += piece.tokens
        return tokens

    def _submit(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._thread.submit(self._jobs)

    def give_up(self) -> None:
        """Have the engine let go of what has not ended, before its next step."""
        for job in self._jobs:
            if not job.is_done:
                job.request.cancel()
        self._finally_do()


def _taken(index: int, job: Job) -> Piece:
    is_last, outbox = job.is_done, job.request.outbox  # asked first: the thread may be adding the last tokens
    tokens = [outbox.popleft() for _ in range(len(outbox))]
    if is_last and job.request.error is not None:
        raise job.request.error
    return Piece(index, tokens, is_last)
