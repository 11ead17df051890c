"""What the endpoints share: the model that is served, who may ask, and how a body becomes requests to the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from paceline.engine.request import Request
from paceline.errors import RequestError
from paceline.mailbox import Mailbox
from paceline.options import read_call
from paceline.runtime import Runtime
from paceline.server.errors import ApiError
from paceline.server.generation import Generation
from paceline.server.sampling import sampling_of
from paceline.server.schemas.sampling import SamplingBody
from paceline.server.settings import Settings

Value = TypeVar("Value")


class Service:
    """A runtime behind HTTP."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime, self.settings = runtime, settings
        self.started = int(time.time())
        self.is_draining = False
        self.num_open = 0  # samples that run or wait
        self._texts = ThreadPoolExecutor(2, "paceline-texts")  # a long prompt must not hold up the event loop
        self._mailbox: Mailbox | None = None

    @property
    def name(self) -> str:
        """What responses call the model."""
        return self.settings.names[0]

    @property
    def fingerprint(self) -> str | None:
        """What, beside the seed, the bytes of a response depend on."""
        return None

    def text_of(self, token_id: int) -> str:
        """The text of a token alone."""
        tokenizer = self.runtime.loaded.tokenizer
        return tokenizer.decode([token_id]) if tokenizer else ""

    @property
    def room(self) -> int:
        """Tokens of the longest request, prompt and output together."""
        target = self.runtime.loaded.target
        return min(target.max_length, target.capacity)

    def open(self) -> None:
        """Join the running event loop."""
        self._mailbox = Mailbox(asyncio.get_running_loop())

    def close(self) -> None:
        """Let go of the threads."""
        self._texts.shutdown(wait=False, cancel_futures=True)

    async def in_thread(self, function: Callable[[], Value]) -> Value:
        """The value of work on texts, done beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._texts, function)

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not served.

        Raises:
            ApiError: 404, with the names there are.
        """
        if name is not None and name not in self.settings.names and not self.settings.any_model:
            known = ", ".join(self.settings.names)
            raise ApiError(404, f"model is {name[:100]!r}; allowed: {known}", "model", "model_not_found")

    async def generation(
        self, prompts: Sequence[list[int]], body: SamplingBody, changes: Mapping[str, Any], tenant: str
    ) -> Generation:
        """The samples of prompts, ready to be decoded; `changes` are options in place of the body's.

        Raises:
            ApiError: too much is open already, or the server is ending.
            PacelineError: what cannot be decoded.
        """
        requests = await self.in_thread(lambda: self._requests(prompts, {**sampling_of(body), **changes}, tenant))
        self._admit(len(requests))
        assert self._mailbox is not None
        return Generation(self.runtime.thread, requests, self._mailbox)

    def _requests(self, prompts: Sequence[list[int]], options: Mapping[str, Any], tenant: str) -> list[Request]:
        """The requests of all prompts: sample j of prompt i is at i * n + j."""
        defaults = {"temperature": 1.0, **self._recommended()}
        given = {name: value for name, value in options.items() if value is not None}
        requests: list[Request] = []
        for ids in prompts:
            limit = self._limit(len(ids), options["max_tokens"])
            call = read_call(None, {**defaults, **given, "max_tokens": limit, "tenant": tenant})
            requests += self.runtime.requests_of([ids], call)
        return requests

    def _recommended(self) -> dict[str, Any]:
        return dict(self.runtime.sampling_defaults())

    def _limit(self, num_prompt_tokens: int, wanted: int | None) -> int:
        """Tokens to generate: what is wanted, cut to what the context leaves, as agents ask for too much."""
        left = self.room - num_prompt_tokens
        if left < 1:
            raise RequestError(
                f"prompt has {num_prompt_tokens} tokens; this model's maximum context length is {self.room} tokens"
            )
        return left if wanted is None or wanted < 0 else min(wanted, left)

    def _admit(self, num_samples: int) -> None:
        if self.is_draining:
            raise ApiError(503, "the server is shutting down", headers={"retry-after": "5"})
        allowed = self.settings.limits.max_open_requests
        if self.num_open + num_samples > allowed:
            raise ApiError(429, f"{self.num_open} requests are open; allowed: {allowed}", headers={"retry-after": "1"})
