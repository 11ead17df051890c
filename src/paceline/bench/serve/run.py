"""From what was asked on the command line to figures: prompts, warm-up, load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paceline.bench.serve.client import BACKENDS, OPENAI, Client, Service, connected
from paceline.bench.serve.load import Load, LoadPlan, run_load
from paceline.bench.serve.prompts import (
    CUSTOM,
    RANDOM,
    RandomSizes,
    ServePrompt,
    custom_prompts,
    random_prompts,
    repeated,
    task_prompts,
)
from paceline.bench.serve.sweep import Sweep, SweepPlan, plain_and_speculative, run_sweep
from paceline.console import progress
from paceline.errors import ConfigError, StateError
from paceline.text.prompt_sets import read_prompt_set

_WARM_CLIENTS = 8
_WARM_SALT = {"cache_salt": "warm-up"}  # the prefix cache knows nothing of it afterwards


@dataclass(frozen=True)
class Asked:
    """What is asked of a server, and how."""

    backend: str = OPENAI
    endpoint: str | None = None  # the backend's own
    model: str | None = None  # the first that the server names
    fields: Mapping[str, Any] = field(default_factory=dict)  # of every body
    dataset: str = "tasks"
    path: Path | None = None
    count: int | None = None  # of requests; all that the dataset has, or 100 random ones
    sizes: RandomSizes = field(default_factory=RandomSizes)
    ignore_eos: bool = False
    seed: int = 0


@dataclass(frozen=True)
class ServeRun:
    """One load, and where it went."""

    service: Service
    prompts: list[ServePrompt]
    load: Load


async def bench_load(base_url: str, asked: Asked, plan: LoadPlan, num_warmups: int) -> ServeRun:
    """One load on a server, after warm-up requests that nobody counts.

    Raises:
        StateError: no request was answered; says the first error.
    """
    async with connected(base_url) as client:
        service = await service_of(client, base_url, asked)
        prompts = await prompts_of(client, service, asked)
        warm = LoadPlan(max_concurrency=plan.max_concurrency or _WARM_CLIENTS, fields={**plan.fields, **_WARM_SALT})
        await run_load(client, service, repeated(prompts, num_warmups), warm)
        with progress(f"{service.model}: requests", len(prompts)) as advance:
            load = await run_load(client, service, prompts, plan, advance)
    _check_answered(load)
    return ServeRun(service, prompts, load)


async def bench_sweep(base_url: str, asked: Asked, plan: SweepPlan) -> tuple[Service, Sweep]:
    """Plain and speculative decoding in a closed loop at several numbers of clients.

    Raises:
        StateError: no request of a cell was answered.
    """
    async with connected(base_url) as client:
        service = await service_of(client, base_url, asked)
        prompts = await prompts_of(client, service, asked)
        variants = plain_and_speculative(client, service)
        total = len(variants) * (plan.num_warmups + plan.repeats * len(plan.clients) * len(prompts))
        with progress(f"{service.model}: requests", total) as advance:
            return service, await run_sweep(variants, prompts, plan, advance)


async def service_of(client: Client, base_url: str, asked: Asked) -> Service:
    """The endpoint and the model, which the server names if nobody else does."""
    if asked.backend not in BACKENDS:
        raise ConfigError(f"backend is {asked.backend!r}; allowed: {', '.join(BACKENDS)}")
    endpoint = asked.endpoint or BACKENDS[asked.backend]
    model = asked.model or await client.first_model()
    return Service(base_url, asked.backend, endpoint, model, asked.fields)


async def prompts_of(client: Client, service: Service, asked: Asked) -> list[ServePrompt]:
    """The prompts of a dataset, as many as asked for."""
    length = asked.sizes.output_len
    if asked.dataset == RANDOM:
        return await _random(client, service, asked)
    if asked.dataset == CUSTOM:
        prompts = custom_prompts(asked.path, length, asked.ignore_eos)
    else:
        prompts = task_prompts(asked.path, length, asked.ignore_eos)
    return repeated(prompts, asked.count or len(prompts))


async def _random(client: Client, service: Service, asked: Asked) -> list[ServePrompt]:
    """Prompts of tokens that occur in the bundled prompts, so that every server knows them as its own."""
    if service.backend != OPENAI:
        raise ConfigError(f"dataset-name is {RANDOM!r} and backend {service.backend!r}; allowed: backend {OPENAI!r}")
    text = "\n".join(prompt.text for prompt in read_prompt_set("bundled", None).prompts)
    ids = await client.token_ids(service.model, text)
    return random_prompts(asked.count or 100, asked.sizes, ids, asked.seed)


def _check_answered(load: Load) -> None:
    if not any(answer.is_answered for answer in load.answers):
        first = load.answers[0]
        raise StateError(f"none of {len(load.answers)} requests was answered: {first.status or ''} {first.error}")
