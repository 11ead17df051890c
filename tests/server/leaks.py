"""What a server holds for its requests: nothing of it may stay when they are gone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POOLS = ("AnyIO worker", "asyncio_", "paceline-texts")  # threads that come when they are needed, up to a number


@dataclass(frozen=True)
class Held:
    """Counts of one process and one application; the server is in this process."""

    samples: int  # by admission
    prompt_tokens: int
    exchanges: int  # HTTP requests
    cache_usage: float
    requests: int  # in the engine
    tasks: int  # of the server's event loop
    threads: int
    files: int  # sockets too


def held(app: Any) -> Held:
    """What is held now."""
    service = app.state.service
    engine, thread = service.runtime.engine, service.runtime.thread
    load = thread.call(engine.load)
    return Held(
        service.admission.num_open,
        service.admission.num_prompt_tokens,
        len(service.telemetry.open),
        load.cache_usage,
        load.num_running + load.num_waiting,
        num_tasks(app),
        len([thread for thread in threading.enumerate() if not thread.name.startswith(_POOLS)]),
        len(os.listdir("/proc/self/fd")),
    )


def num_tasks(app: Any) -> int:
    """Tasks of the server's event loop, this question not among them."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    loop = app.state.service._mailbox._loop
    return asyncio.run_coroutine_threadsafe(count(), loop).result(10)


def until_let_go(app: Any, before: Held, seconds: float = 10.0) -> None:
    """Wait until no more is held than before."""
    end = time.monotonic() + seconds
    while True:
        now = held(app)
        more = [name for name in Held.__annotations__ if getattr(now, name) > getattr(before, name)]
        if not more:
            return
        assert time.monotonic() < end, f"held before: {before}; now: {now}"
        time.sleep(0.01)


def resident_bytes() -> int:
    """Memory of this process, without what is garbage."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
