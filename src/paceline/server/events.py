"""Responses that end when their client goes: streams of server-sent events, and whole ones that are waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from paceline.server.errors import ApiError

Value = TypeVar("Value")

DONE = b"data: [DONE]\n\n"
ALIVE = b": keep-alive\n\n"
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def dumps(value: Any) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def event(value: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + dumps(value) + b"\n\n"


class JsonResponse(Response):
    """A value as JSON; numbers that JSON does not have are an error, not a body that nobody can read."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """See Starlette."""
        return dumps(content)


class EventStream(Response):
    """Events as they come. A client that goes ends them within a step, and so does one that stops reading.

    Args:
        events: what is sent.
        give_up: called at the end; events that nobody has begun to ask for cannot let go of anything themselves.
        write_seconds: that a reader may refuse to take more.
        headers: of the response, beside its own.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        give_up: Callable[[], None],
        write_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._events, self._give_up, self._write_seconds = events, give_up, write_seconds
        self.status_code, self.background = 200, None
        self.init_headers({**_HEADERS, "content-type": "text/event-stream; charset=utf-8", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette."""
        leaving = asyncio.ensure_future(_departure(receive))
        writing = asyncio.ensure_future(self._write(send, leaving))
        try:
            await asyncio.wait((writing, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            self._give_up()
            with suppress(asyncio.CancelledError, asyncio.TimeoutError):
                await writing

    async def _write(self, send: Send, leaving: asyncio.Future[None]) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for part in self._events:
                message = {"type": "http.response.body", "body": part, "more_body": True}
                await asyncio.wait_for(send(message), self._write_seconds)
                if leaving.done():  # until Python 3.12 `wait_for` may have swallowed that this was cancelled
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._events.aclose()  # type: ignore[attr-defined]


async def while_connected(request: Request, work: Awaitable[Value]) -> Value:
    """The value of some work, which is given up when the client goes.

    Raises:
        ApiError: the client is gone; nobody reads it but the log.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_departure(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "the client is gone")
    finally:
        for task in (working, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
