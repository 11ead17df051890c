"""An application under uvicorn, from its first request to its last: signals, draining, a socket of our own."""

from __future__ import annotations

import socket
from types import FrameType
from typing import Any

import uvicorn

from paceline.server.service import Service

KEEP_ALIVE = 120  # seconds: agents think between two turns, and uvicorn's 5 would reset their connections


class Server(uvicorn.Server):
    """Uvicorn's, which refuses what is new from the first signal on, while it finishes what is running.

    The second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        self._service.admission.is_draining = True
        super().handle_exit(sig, frame)


def serve(app: Any, listening: socket.socket, drain_seconds: int) -> None:
    """Serve until a signal comes, and then as long as running requests take, but no longer than `drain_seconds`."""
    config = uvicorn.Config(
        app,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=drain_seconds,
        log_level="warning",
        server_header=False,
    )
    Server(config, app.state.service).run(sockets=[listening])


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
