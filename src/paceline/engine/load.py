"""What an engine is at: numbers and states for whoever watches it, copied and not shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from paceline.engine.request import Request
from paceline.engine.scheduler import Scheduler

State = Literal["waiting", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How much an engine has to do."""

    num_running: int  # requests that hold cache, those whose prompts are being read among them
    num_waiting: int
    num_prefilling: int
    cache_usage: float  # the share of the cache that requests hold, from 0 to 1
    num_preemptions: int  # since the engine began
    learnt: Mapping[str, int]  # what has become of learning while serving


@dataclass(frozen=True, slots=True)
class RequestSnapshot:
    """One request at one moment."""

    id: int
    state: State
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, found in the prefix cache
    num_read_tokens: int  # in the cache by now
    num_output_tokens: int
    age: float  # seconds since it came
    deadline_left: float | None  # seconds; None if it has no deadline


def snapshots(scheduler: Scheduler, num_read: Callable[[Request], int], now: float) -> list[RequestSnapshot]:
    """All requests: those that decode, those whose prompts are read, those that wait."""

    def taken(requests: Sequence[Request], state: State) -> list[RequestSnapshot]:
        return [_snapshot(request, state, num_read(request), now) for request in requests]

    waiting = [_snapshot(request, "waiting", 0, now) for request in scheduler.waiting]
    return [*taken(scheduler.decoding, "decode"), *taken(scheduler.reading, "prefill"), *waiting]


def _snapshot(request: Request, state: State, num_read: int, now: float) -> RequestSnapshot:
    counts = (request.num_input_tokens, request.stats.num_cached_tokens, num_read, request.num_output_tokens)
    arrived, deadline = request.times.arrived, request.terms.deadline
    age = 0.0 if arrived is None else now - arrived
    return RequestSnapshot(request.id, state, *counts, age, None if deadline is None else deadline - now)
