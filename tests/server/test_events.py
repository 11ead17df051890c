"""A stream lets go of what it stands for, however early its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from paceline.server.events import EventStream


@pytest.mark.parametrize("num_taken", range(4))
def test_a_client_that_goes_at_any_event_is_let_go_of(num_taken: int) -> None:
    let_go = []

    async def events() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"data: %d\n\n" % number

    async def run() -> int:
        taken, is_stuck = 0, asyncio.Event()

        async def receive() -> dict[str, Any]:
            await is_stuck.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal taken
            if taken == num_taken:  # the first message is the head: then no event has been asked for
                is_stuck.set()
                await asyncio.sleep(60.0)
            taken += 1

        await EventStream(events(), lambda: let_go.append(True), 60.0)({}, receive, send)
        return taken

    assert asyncio.run(run()) == num_taken
    assert let_go == [True]
