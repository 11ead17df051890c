"""News wakes one waiter, in time or not at all, and a waiter that is given up stays so."""

from __future__ import annotations

import asyncio
import threading

import pytest

from paceline.mailbox import News


def test_news_of_another_thread_wakes_and_silence_is_told() -> None:
    async def run() -> list[bool]:
        news = News()
        heard = [await news.wait(0.01)]
        threading.Timer(0.02, news.wake).start()
        heard.append(await news.wait(20.0))
        news.wake()
        return [*heard, await news.wait(), await news.wait(0.01)]

    assert asyncio.run(run()) == [False, True, True, False]


@pytest.mark.parametrize("ticks", range(6))
def test_a_waiter_is_given_up_even_if_news_comes_at_that_moment(ticks: int) -> None:
    async def run() -> bool:
        news = News()
        waiter = asyncio.ensure_future(news.wait(60.0))
        await asyncio.sleep(0)
        news.wake()
        for _ in range(ticks):
            await asyncio.sleep(0)
        was_done = waiter.done()
        waiter.cancel()
        await asyncio.wait({waiter})
        return was_done or waiter.cancelled()

    assert asyncio.run(run())
