"""The one thread that owns an engine: callers hand in requests by a queue, and are woken when there is news.

One thread, because a kernel library keeps a pool of workers for each thread that calls it: callers that stepped the
engine themselves would bring a pool each. Knows nothing of texts, and nothing of who waits: a thread or a coroutine.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from paceline.engine.engine import Engine
from paceline.engine.ports import Pacer
from paceline.engine.request import Request
from paceline.errors import EngineError, PacelineError, StateError

Value = TypeVar("Value")


class Job:
    """A request in the engine's care, and the way back to whoever waits for it.

    Args:
        request: what to decode; its `outbox` is filled by the engine's thread and emptied by the caller's.
        wake: called by the engine's thread when the request has ended, or after each step if `every_step`.
        pacer: in place of the engine's own.
        every_step: whether the caller wants tokens as they come.
    """

    def __init__(
        self, request: Request, wake: Callable[[], object], pacer: Pacer | None = None, every_step: bool = False
    ) -> None:
        self.request, self.pacer, self.every_step = request, pacer, every_step
        self.is_done = False  # the engine has let go of the request: nothing of it changes any more
        self._wake = wake

    def wake(self) -> None:
        """Tell the caller; one that has gone away, its event loop closed, is no concern of the engine."""
        with contextlib.suppress(Exception):
            self._wake()


class EngineThread:
    """Steps an engine while there is something to decode, and sleeps otherwise."""

    def __init__(self) -> None:
        self.engine: Engine | None = None  # made in the thread, by `call`
        self._jobs: list[Job] = []
        self._inbox: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None ends the thread
        self._lock = threading.Lock()  # so that nothing is put into the inbox behind the end
        self._is_stopped = False
        self._death: BaseException | None = None  # an error that was no request's
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="paceline-engine", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `StateError` if nothing can be asked of the thread."""
        if self._is_stopped:
            raise StateError("this LLM is closed; load the model again")
        if os.getpid() != self._pid:
            raise StateError("this LLM belongs to the process that loaded it; load the model in each process")
        if threading.current_thread() is self._thread:
            raise StateError("a drafter or a callback asked the LLM that it works for; allowed: from other threads")
        if self._death is not None:
            raise StateError("the engine has ended with an error of its own; load the model again")

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs and takes requests."""
        return self._thread.is_alive() and not self._is_stopped and self._death is None

    def call(self, function: Callable[[], Value]) -> Value:
        """The value of a function that runs in the thread, between steps; its errors are raised here."""
        return self.ask(function).result()

    def ask(self, function: Callable[[], Value]) -> Future[Value]:
        """The same for who does not wait, or not for long."""
        future: Future[Value] = Future()
        self._put(lambda: _fulfil(future, function))
        return future

    def submit(self, jobs: Sequence[Job]) -> None:
        """Decode requests, all of them from the same step on if there is room."""
        self._put(lambda: self._begin(jobs))

    def stop(self, finally_do: Callable[[], None] = lambda: None, wait: bool = True) -> None:
        """Let go of all requests, which end with a `StateError`, then of the engine, and end the thread.

        `wait` until it has ended; if not, it does so behind what it is at, a model that is being read, say.
        """
        if os.getpid() != self._pid:
            return  # the thread is not in this process
        with self._lock:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._inbox.put(lambda: self._let_go(finally_do))
            self._inbox.put(None)
        for job in list(self._jobs):
            job.request.cancel(_closed())  # a long prompt is given up at its next chunk
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def _put(self, task: Callable[[], None]) -> None:
        with self._lock:
            self.check()
            self._inbox.put(task)

    def _run(self) -> None:
        while True:
            try:
                self._serve()
                return
            except BaseException as error:
                self._death = error
                self._fail_all(error)

    def _fail_all(self, death: BaseException) -> None:
        """End all requests: nothing can be said of the engine any more, and only to stop is left to do."""
        for job in self._jobs:
            if job.request.finish_reason is None:
                failure = EngineError(f"request {job.request.id} ended with its engine: {death!r}")
                failure.__cause__ = death
                job.request.fail(failure)
        self._tell()

    def _serve(self) -> None:
        """Do what is asked, and step while there is something to decode, until the end is asked for."""
        while True:
            while not self._jobs or not self._inbox.empty():
                if self._inbox.empty() and self._death is None:
                    self._rest()
                task = self._inbox.get()
                if task is None:
                    return
                task()
                del task  # it may hold a model
            self._step()

    def _begin(self, jobs: Sequence[Job]) -> None:
        assert self.engine is not None
        self._jobs += jobs  # first: whatever happens, each is told of its end
        if self._death is not None:  # they were in the queue when it came
            self._fail_all(self._death)
            return
        for job in jobs:
            try:
                self.engine.add(job.request, job.pacer)
            except Exception as error:  # of a pacer that cannot take up a drafter
                self.engine.fail([job.request], error)
        self._tell()

    def _step(self) -> None:
        assert self.engine is not None
        with contextlib.suppress(BaseException):  # a drafter's SystemExit, say: every request has been told
            self.engine.step()
        self._tell()

    def _rest(self) -> None:
        if self.engine is not None:
            with contextlib.suppress(Exception):  # nobody waits for it
                self.engine.pacer.rest()
            while self._inbox.empty() and self.engine.rest():
                pass

    def _tell(self) -> None:
        """Wake whoever waits for a request that has ended, or for tokens that have come."""
        for job in self._jobs:
            job.is_done = job.request.finish_reason is not None
            if job.is_done or (job.every_step and job.request.outbox):
                job.wake()
        self._jobs = [job for job in self._jobs if not job.is_done]

    def _let_go(self, finally_do: Callable[[], None]) -> None:
        for job in self._jobs:
            job.request.cancel(_closed())
        if self.engine is not None and self._jobs:
            self.engine.sweep()
        self._tell()
        if self.engine is not None:
            with contextlib.suppress(Exception):
                self.engine.pacer.close()
        self.engine = None
        finally_do()


def _fulfil(future: Future[Value], function: Callable[[], Value]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)


def _closed() -> PacelineError:
    return StateError("this LLM was closed while it decoded the request")
