"""Many requests at once: open loop, at times drawn beforehand, or closed loop, by as many clients as are allowed.

An open loop sends when a request is due, however many are on their way: only so does queueing show. A limit on top of
it hides the queue, so the wait for one's turn is kept apart (`client_queue_time`, vLLM's name).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from paceline.bench.serve.answer import Answer
from paceline.bench.serve.client import Client, Service
from paceline.bench.serve.counters import Counters
from paceline.bench.serve.prompts import ServePrompt
from paceline.bench.serve.schedule import arrivals


@dataclass(frozen=True)
class LoadPlan:
    """How many come when, and what each of them carries besides."""

    request_rate: float = math.inf  # a second
    burstiness: float = 1.0
    max_concurrency: int | None = None
    seed: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_closed(self) -> bool:
        """A fixed number of clients, each with its next request as soon as the last is answered."""
        return math.isinf(self.request_rate) and self.max_concurrency is not None


@dataclass
class Load:
    """All answers, in the order of the prompts, and what it took."""

    answers: list[Answer]
    started: float  # seconds of time.perf_counter, as all times
    ended: float
    cpu_seconds: float  # of this process while it lasted
    lateness: list[float]  # in an open loop: seconds by which this process was behind its own schedule, by request
    saturated_until: float | None  # in a closed loop: when the first client found nothing more to ask
    counted: Counters | None  # by the server, in all
    counted_saturated: Counters | None  # until `saturated_until`

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return self.ended - self.started

    @property
    def cpu_share(self) -> float:
        """Of one core, what this process took while it lasted."""
        return self.cpu_seconds / self.seconds


def _nothing() -> None:
    """Nobody watches."""


async def run_load(
    client: Client,
    service: Service,
    prompts: Sequence[ServePrompt],
    plan: LoadPlan,
    on_answer: Callable[[], object] = _nothing,
) -> Load:
    """Send all prompts as planned and wait for all answers."""
    return await _Running(client, service, plan, len(prompts), on_answer).run(prompts)


class _Running:
    """A load on its way."""

    def __init__(
        self, client: Client, service: Service, plan: LoadPlan, count: int, on_answer: Callable[[], object]
    ) -> None:
        self._client, self._service, self._plan, self._on_answer = client, service, plan, on_answer
        self._turn = asyncio.Semaphore(plan.max_concurrency) if plan.max_concurrency else nullcontext()
        self._unsent = count
        self._lateness: list[float] = []
        self._saturated_until: float | None = None
        self._scrape: asyncio.Task[Counters | None] | None = None

    async def run(self, prompts: Sequence[ServePrompt]) -> Load:
        plan = self._plan
        due = arrivals(len(prompts), plan.request_rate, plan.burstiness, plan.seed)
        before = await self._client.counters()
        cpu, started = time.process_time(), time.perf_counter()
        tasks = []
        for prompt, offset in zip(prompts, due, strict=True):
            await _sleep_until(started + offset)
            if offset:
                self._lateness.append(time.perf_counter() - started - offset)
            tasks.append(asyncio.create_task(self._ask(prompt, started + offset)))
        answers = list(await asyncio.gather(*tasks))
        ended, cpu = time.perf_counter(), time.process_time() - cpu
        saturated = await self._scrape if self._scrape else None
        after = await self._client.counters()
        counted, counted_saturated = (page.since(before) if page and before else None for page in (after, saturated))
        return Load(answers, started, ended, cpu, self._lateness, self._saturated_until, counted, counted_saturated)

    async def _ask(self, prompt: ServePrompt, due: float) -> Answer:
        async with self._turn:
            self._unsent -= 1
            body = self._service.body(prompt, self._plan.fields)
            answer = await self._client.ask(self._service.endpoint, body, prompt.label, due)
        if self._plan.is_closed and not self._unsent and self._scrape is None:
            self._saturated_until = answer.ended
            self._scrape = asyncio.create_task(self._client.counters())
        self._on_answer()
        return answer


async def _sleep_until(at: float) -> None:
    """Let others run, and wait if it is too early."""
    await asyncio.sleep(max(at - time.perf_counter(), 0.0))
