"""The same bytes under load: whatever else the server does, a response is what `generate` gives offline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from paceline import LLM
from paceline.engine import engine
from paceline.server import Settings, create_app

from .running import running
from .traffic import Plain, differences, drawn, send_all


@pytest.fixture(scope="module")
def plain(bundled: LLM) -> Plain:
    return Plain(bundled)


@pytest.fixture(scope="module")
def cramped() -> Iterator[LLM]:
    """A cache in which few of the requests have room at once."""
    with LLM(cache_tokens=1000) as llm:
        yield llm


def settle(llm: LLM) -> None:
    """Wait until the engine has let go of those whose clients went."""
    end = time.monotonic() + 20
    while not llm.engine.scheduler.is_idle and time.monotonic() < end:
        time.sleep(0.01)
    assert llm.engine.scheduler.is_idle


def test_mixed_traffic(bundled: LLM, plain: Plain, url: str) -> None:
    asks = drawn(seed=3, count=80)
    asyncio.run(send_all(url, asks))
    assert differences(asks, plain) == []
    assert sum(ask.is_whole for ask in asks) > 55
    assert [ask for ask in asks if ask.leaves_after is not None and not ask.is_whole]
    settle(bundled)


def test_mixed_traffic_in_a_small_cache(cramped: LLM, plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WATERMARK", 0.0)  # no room is left to grow into, however slow the machine
    asks = drawn(seed=4, count=70)
    for ask in asks:
        ask.delay = 0.0  # there is no room for all, however fast the machine
    app = create_app(cramped, Settings(("m",)))
    with running(app) as url:
        asyncio.run(send_all(url, asks))
    assert differences(asks, plain) == []
    settle(cramped)
    load = cramped.runtime.thread.call(cramped.engine.load)
    assert load.num_preemptions > 0
    assert load.cache_usage == 0.0
    assert app.state.service.admission.num_open == 0
