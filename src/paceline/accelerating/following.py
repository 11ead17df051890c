"""The tokens of several requests as they come, a place at a time, as transformers' streamers want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue

from paceline.engine.request import Request
from paceline.engine.thread import EngineThread, Job

Put = Callable[[list[int]], None]  # the tokens of all rows at one place


def follow(thread: EngineThread, requests: Sequence[Request], put: Put, pad: int) -> None:
    """Decode requests to their ends; `put` gets each place as soon as all have come to it, the ended ones padded."""
    news: SimpleQueue[None] = SimpleQueue()
    jobs = [Job(request, partial(news.put, None), every_step=True) for request in requests]
    rows: list[list[int]] = [[] for _ in requests]
    place, are_done = 0, [False] * len(jobs)
    try:
        thread.submit(jobs)
        while not all(are_done):
            news.get()
            are_done = [_taken(job, row) for job, row in zip(jobs, rows, strict=True)]
            while _is_full(rows, are_done, place):
                put([row[place] if place < len(row) else pad for row in rows])
                place += 1
    finally:
        for job in jobs:
            if not job.is_done:
                job.request.cancel()


def _taken(job: Job, row: list[int]) -> bool:
    """Take the tokens that have come to a row; whether these were the last."""
    is_done = job.is_done  # asked first: the thread may be adding the last ones
    while job.request.outbox:
        row.append(job.request.outbox.popleft().id)
    if is_done and job.request.error is not None:
        raise job.request.error
    return is_done


def _is_full(rows: Sequence[list[int]], are_done: Sequence[bool], place: int) -> bool:
    has_come = [len(row) > place for row in rows]
    return any(has_come) and all(come or done for come, done in zip(has_come, are_done, strict=True))
