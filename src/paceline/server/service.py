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
from paceline.server.admission import Admission
from paceline.server.chat.format import ChatFormat, find_format
from paceline.server.errors import ApiError
from paceline.server.generation import Generation
from paceline.server.observing.setup import telemetry
from paceline.server.sampling import sampling_of
from paceline.server.schemas.sampling import SamplingBody
from paceline.server.settings import Settings

Value = TypeVar("Value")


class Service:
    """A runtime behind HTTP."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self.runtime, self.settings = runtime, settings
        self.started = int(time.time())
        self.admission = Admission(settings.limits)
        self.telemetry = telemetry(runtime, settings, self.room)
        self._texts = ThreadPoolExecutor(2, "paceline-texts")  # a long prompt must not hold up the event loop
        self._mailbox: Mailbox | None = None
        self.chat_format = _chat_format(runtime, settings)

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

    def ids_of(self, prompts: Sequence[str | list[int]]) -> list[list[int]]:
        """The token ids of prompts."""
        return [self.runtime.factory.ids(prompt) for prompt in prompts]

    def open(self) -> None:
        """Join the running event loop."""
        self._mailbox = Mailbox(asyncio.get_running_loop())
        self.telemetry.join(self.runtime.engine)

    def close(self) -> None:
        """Let go of the threads."""
        self._texts.shutdown(wait=False, cancel_futures=True)
        self.telemetry.leave()

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
        self,
        prompts: Callable[[], Sequence[list[int]]],
        body: SamplingBody,
        changes: Mapping[str, Any],
        tenant: str,
        num_prompts: int = 1,
    ) -> Generation:
        """The samples of prompts, ready to be decoded.

        Args:
            prompts: gives their token ids; it is called beside the event loop, once there is room for them.
            body: what was sent.
            changes: options in place of the body's.
            tenant: who sent it.
            num_prompts: how many `prompts` gives.

        Raises:
            ApiError: too much is open already, or the server is ending.
            PacelineError: what cannot be decoded.
        """
        options = {**sampling_of(body), **changes, "tenant": _salted(tenant, body.cache_salt)}
        ticket = self.admission.enter(num_prompts * (1 if body.n is None else max(body.n, 1)))
        try:
            requests = await self.in_thread(lambda: self._requests(prompts(), options))
            ticket.add_prompt_tokens(sum([request.num_prompt_tokens for request in requests]))
            self.telemetry.begun(requests, len(requests) // num_prompts, tenant)
        except BaseException:
            ticket.give_back()
            raise
        assert self._mailbox is not None
        seconds = self.settings.limits.request_seconds
        return Generation(self.runtime.thread, requests, self._mailbox, seconds, ticket.give_back)

    def _requests(self, prompts: Sequence[list[int]], options: Mapping[str, Any]) -> list[Request]:
        """The requests of all prompts: sample j of prompt i is at i * n + j."""
        defaults = {"temperature": 1.0, **self._recommended()}
        given = {name: value for name, value in options.items() if value is not None}
        requests: list[Request] = []
        for ids in prompts:
            limit = self._limit(len(ids), options["max_tokens"])
            call = read_call(None, {**defaults, **given, "max_tokens": limit})
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


def _salted(tenant: str, salt: str | None) -> str:
    """Who shares a cache: those of one key and one `cache_salt`."""
    return tenant if salt is None else f"{tenant}/{salt}"


def _chat_format(runtime: Runtime, settings: Settings) -> ChatFormat:
    loaded = runtime.loaded
    architecture = loaded.info.architecture if loaded.info else ""
    return find_format(loaded.tokenizer, settings.chat_template, settings.response_template, architecture)
