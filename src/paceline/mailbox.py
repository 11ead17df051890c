"""How the engine's thread wakes coroutines: one call into the event loop for all that a step has news for."""

from __future__ import annotations

import asyncio
from collections import deque


class Mailbox:
    """The way from another thread into an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[asyncio.Event] = deque()
        self._is_scheduled = False

    def post(self, event: asyncio.Event) -> None:
        """Set an event in the loop soon; called by the engine's thread."""
        self._due.append(event)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False  # first: what is posted from here on schedules a call of its own
        while self._due:
            self._due.popleft().set()


class News:
    """Wakes one coroutine from another thread."""

    def __init__(self, mailbox: Mailbox | None = None) -> None:
        self._mailbox = mailbox or Mailbox(asyncio.get_running_loop())
        self._event = asyncio.Event()
        self._is_late = False

    def wake(self) -> None:
        """Called by the engine's thread."""
        self._mailbox.post(self._event)

    async def wait(self, seconds: float | None = None) -> bool:
        """Until there has been news since the last call; False if there was none for so many seconds.

        `asyncio.wait_for` is no help: until Python 3.12 it swallows a cancellation that comes together with news, and
        a reader who is gone would be decoded for until the end.
        """
        self._is_late = False
        timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._give_up)
        try:
            await self._event.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._event.clear()
        return not self._is_late

    def _give_up(self) -> None:
        if not self._event.is_set():
            self._is_late = True
            self._event.set()
