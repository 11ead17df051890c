"""A real uvicorn in a thread, on a free port: what clients see is what is tested."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from paceline.server import Limits
from paceline.server.running import config_of


@contextmanager
def running(app: Any, limits: Limits | None = None, **options: Any) -> Iterator[str]:
    """The address of an application that is being served."""
    config = config_of(app, 5, limits or Limits(), host="127.0.0.1", port=0, lifespan="on", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended before it began"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not end"
