"""An application under uvicorn, from its first request to its last: signals, draining, a socket of our own."""

from __future__ import annotations

import asyncio
import socket
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from paceline.server.service import Service
from paceline.server.settings import Limits

MAX_HEAD_BYTES = 64 * 1024
KEEP_ALIVE = 120  # seconds: agents think between two turns, and uvicorn's 5 would reset their connections


class Protocol(HttpToolsProtocol):
    """Uvicorn's, which takes headers of any size, and waits for ever for a client that neither sends nor reads.

    Whoever sent headers without end would fill the memory; who stops in their midst, or reads no more, would keep a
    connection, with what it was to read, until the server ends.
    """

    limits: Limits
    _num_head_bytes: int | None = None  # of the request whose headers are being read
    _end_of_head: asyncio.TimerHandle | None = None
    _end_of_write: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See uvicorn, which gives a connection its time only behind the first request."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._end_of_head, self._end_of_write):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """See uvicorn: the client takes nothing, and more is to be sent than the system holds for it."""
        super().pause_writing()
        self._end_of_write = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """See uvicorn."""
        super().resume_writing()
        if self._end_of_write is not None:
            self._end_of_write.cancel()

    def on_message_begin(self) -> None:
        """See uvicorn."""
        self._num_head_bytes = 0
        self._end_of_head = self.loop.call_later(self.limits.body_seconds, self.transport.abort)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See uvicorn."""
        self._num_head_bytes = None
        if self._end_of_head is not None:
            self._end_of_head.cancel()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """See uvicorn."""
        super().data_received(data)
        if self._num_head_bytes is not None and not self.transport.is_closing():
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"the headers are too large; allowed: {MAX_HEAD_BYTES} bytes")


class Server(uvicorn.Server):
    """Uvicorn's, which refuses what is new from the first signal on, while it finishes what is running.

    The second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn, which would raise the signal again at the end: the model is to be closed first."""
        self._service.admission.is_draining = True
        self.force_exit, self.should_exit = self.should_exit, True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn, which on the second signal leaves the application without its end."""
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()


def serve(app: Any, listening: socket.socket, drain_seconds: int) -> None:
    """Serve until a signal comes, and then as long as running requests take, but no longer than `drain_seconds`."""
    service: Service = app.state.service
    Server(config_of(app, drain_seconds, service.settings.limits), service).run(sockets=[listening])


def config_of(app: Any, drain_seconds: int, limits: Limits, **options: Any) -> uvicorn.Config:
    """How uvicorn runs an application of ours."""
    own_logs = {"log_config": None, "access_log": False}  # there is a line of ours for each request
    options = {"timeout_keep_alive": KEEP_ALIVE, "server_header": False, **own_logs, **options}
    protocol = type("LimitedProtocol", (Protocol,), {"limits": limits})
    return uvicorn.Config(app, http=protocol, timeout_graceful_shutdown=drain_seconds, **options)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound, before a model is loaded: a port that is taken is found out at once.

    Raises:
        OSError: it cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except BaseException:
        listening.close()
        raise
    return listening
