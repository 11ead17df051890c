"""How callers wait for what the engine's thread decodes: whole outputs and streams, in threads and in coroutines.

Whoever gives up, by Ctrl-C, a cancelled task or by closing a stream, ends its own request and no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from typing_extensions import Self

from paceline.engine.ports import Pacer
from paceline.engine.request import Request, Token
from paceline.engine.thread import EngineThread, Job
from paceline.errors import StateError
from paceline.mailbox import News
from paceline.output import Output

Finish = Callable[[Request, Sequence[Token]], Output]


def decode(thread: EngineThread, requests: Sequence[Request], pacer: Pacer | None) -> None:
    """Decode requests to their ends; the first error of one ends the others."""
    news: SimpleQueue[None] = SimpleQueue()
    jobs = [Job(request, partial(news.put, None), pacer) for request in requests]
    try:
        thread.submit(jobs)
        while not _are_done(jobs):
            news.get()
    finally:
        _give_up(jobs)


async def adecode(thread: EngineThread, requests: Sequence[Request], pacer: Pacer | None) -> None:
    """`decode` in a coroutine."""
    news = News()
    jobs = [Job(request, news.wake, pacer) for request in requests]
    try:
        thread.submit(jobs)
        while not _are_done(jobs):
            await news.wait()
    finally:
        _give_up(jobs)


class Stream:
    """An iterator of tokens; `output` is what has been emitted so far, also after an interruption."""

    def __init__(self, thread: EngineThread, request: Request, pacer: Pacer | None, finish: Finish) -> None:
        self._news: SimpleQueue[None] = SimpleQueue()
        self._reader = _Reader(thread, Job(request, partial(self._news.put, None), pacer, every_step=True), finish)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Token:
        try:
            while (token := self._reader.next()) is None:
                self._news.get()
        except StopIteration:
            raise
        except BaseException:
            self.close()
            raise
        return token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._reader.give_up()

    def close(self) -> None:
        """Stop decoding and free the request's cache."""
        self._reader.give_up()
        while not self._reader.is_done:
            self._news.get()

    @property
    def output(self) -> Output:
        """The output so far; its `finish_reason` is "abort" if decoding did not come to its end."""
        return self._reader.output()


class AsyncStream:
    """An asynchronous iterator of tokens, otherwise as `Stream`. The request is made when the first is asked for."""

    def __init__(self, thread: EngineThread, make: Callable[[], Request], pacer: Pacer | None, finish: Finish) -> None:
        self._thread, self._make, self._pacer, self._finish = thread, make, pacer, finish
        self._reader: _Reader | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        reader = await self._opened()
        try:
            while (token := reader.next()) is None:
                await self._news.wait()
        except StopIteration:
            raise StopAsyncIteration from None
        except BaseException:
            reader.give_up()
            raise
        return token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._reader is not None:
            self._reader.give_up()

    async def aclose(self) -> None:
        """Stop decoding and free the request's cache."""
        reader = await self._opened()
        reader.give_up()
        while not reader.is_done:
            await self._news.wait()

    @property
    def output(self) -> Output:
        """The output so far; its `finish_reason` is "abort" if decoding did not come to its end."""
        if self._reader is None:
            raise StateError("the stream has not begun; read it to its end, or close it")
        return self._reader.output()

    async def _opened(self) -> _Reader:
        if self._reader is None:
            request = await asyncio.to_thread(self._make)
            self._news = News()
            job = Job(request, self._news.wake, self._pacer, every_step=True)
            self._reader = _Reader(self._thread, job, self._finish)
        return self._reader


class _Reader:
    """Takes the tokens of one job, which is begun when the first is asked for."""

    def __init__(self, thread: EngineThread, job: Job, finish: Finish) -> None:
        self._thread, self._job, self._finish = thread, job, finish
        self._has_begun = False
        self._seen: list[Token] = []
        self._output: Output | None = None

    @property
    def is_done(self) -> bool:
        """Whether the engine has nothing more to do with the request."""
        return self._job.is_done

    def next(self) -> Token | None:
        """The next token, or None if there is none yet.

        Raises:
            StopIteration: there will be none.
            PacelineError: why there will be none.
        """
        if not self._has_begun:
            self._begin()
        is_done, request = self._job.is_done, self._job.request  # asked first: the thread may be adding the last ones
        if request.outbox:
            self._seen.append(request.outbox.popleft())
            return self._seen[-1]
        if is_done:
            _raise_error_of(self._job)
            self.output()
            raise StopIteration
        return None

    def give_up(self) -> None:
        """Have the engine let go of the request; at once if it has not begun."""
        if self._has_begun:
            self._job.request.cancel()
        elif not self._job.is_done:
            self._job.request.abandon()
            self._job.is_done = self._has_begun = True

    def output(self) -> Output:
        """What has been read; made when the stream ends, so that it is there when the `LLM` is closed."""
        if not self._job.is_done:
            raise StateError("the stream is still running; read it to its end, or close it")
        if self._output is None:
            self._output = self._finish(self._job.request, self._seen)
        return self._output

    def _begin(self) -> None:
        self._has_begun = True
        try:
            self._thread.submit([self._job])
        except BaseException:
            self._job.request.abandon()
            self._job.is_done = True
            raise


def _are_done(jobs: Sequence[Job]) -> bool:
    """Whether all have ended; raises the error of the first that has one."""
    are_done = all(job.is_done for job in jobs)  # asked first: what ends meanwhile is looked at the next time
    for job in jobs:
        _raise_error_of(job)
    return are_done


def _raise_error_of(job: Job) -> None:
    if job.request.error is not None:
        raise job.request.error


def _give_up(jobs: Sequence[Job]) -> None:
    for job in jobs:
        if not job.is_done:
            job.request.cancel()
