"""What the endpoints share: the model that is served, who may ask, and how a body becomes requests to the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from paceline.engine.request import Request
from paceline.mailbox import Mailbox
from paceline.options import read_call
from paceline.runtime import Runtime
from paceline.server.admission import Admission
from paceline.server.chat.format import ChatFormat, find_format
from paceline.server.deadlines import milliseconds_left, moment_of
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
        self._reading_weights: asyncio.Future[str] | None = None
        self.fingerprint = ""  # what, beside the seed, the bytes of a response depend on; known before there is one
        self.chat_format = _chat_format(runtime, settings)

    @property
    def name(self) -> str:
        """What responses call the model."""
        return self.settings.names[0]

    def text_of(self, token_id: int) -> str:
        """The text of a token alone."""
        tokenizer = self.runtime.loaded.tokenizer
        return tokenizer.decode([token_id]) if tokenizer else ""

    @property
    def room(self) -> int:
        """Tokens of the longest request, prompt and output together."""
        target = self.runtime.loaded.target
        return min(target.max_length, target.capacity)

    def ids_of(self, prompts: Sequence[str | list[int]], add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of prompts."""
        return [self.runtime.factory.ids(prompt, add_special_tokens) for prompt in prompts]

    def open(self) -> None:
        """Join the running event loop."""
        loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(loop)
        self._reading_weights = loop.run_in_executor(None, self.runtime.fingerprint)
        self._reading_weights.add_done_callback(lambda done: done.cancelled() or done.exception())  # told to who asks
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
        ticket = self.admission.enter(num_prompts * (1 if body.n is None else max(body.n, 1)))
        try:
            options = {**sampling_of(body), **changes, "tenant": _salted(tenant, body.cache_salt)}
            moment = moment_of(body.deadline_ms)
            requests = await self.in_thread(lambda: self._requests(prompts(), options, moment))
            ticket.add_prompt_tokens(sum([request.num_input_tokens for request in requests]))
            self.telemetry.begun(requests, len(requests) // num_prompts, tenant)
            assert self._mailbox is not None
            assert self._reading_weights is not None
            self.fingerprint = await asyncio.shield(self._reading_weights)
        except BaseException:
            ticket.give_back()
            raise
        seconds = self.settings.limits.request_seconds
        generation = Generation(self.runtime.thread, requests, self._mailbox, seconds, ticket.give_back)
        if moment is not None:  # who is refused at once is to be told by a status, before a stream has begun
            await generation.begin()
        return generation

    def _requests(
        self, prompts: Sequence[list[int]], options: Mapping[str, Any], moment: float | None
    ) -> list[Request]:
        """The requests of all prompts, due at a moment: sample j of prompt i is at i * n + j."""
        defaults = {"temperature": 1.0, **self._recommended()}
        given = {name: value for name, value in options.items() if value is not None}
        requests: list[Request] = []
        for ids in prompts:
            num_prompt_tokens = min(len(ids), options["truncate_prompt_tokens"] or len(ids))
            if self.runtime.loaded.target.reads is not None:
                num_prompt_tokens = _BEGINNING  # what is sent is a source, which takes no room of the output
            limit = self._limit(num_prompt_tokens, options["max_tokens"])
            left = milliseconds_left(moment)
            call = read_call(None, {**defaults, **given, "max_tokens": limit, "deadline_ms": left})
            requests += self.runtime.requests_of([ids], call)
        return requests

    def _recommended(self) -> dict[str, Any]:
        return dict(self.runtime.sampling_defaults())

    def _limit(self, num_prompt_tokens: int, wanted: int | None) -> int | None:
        """Tokens to generate: what is wanted, cut to what the context leaves, as agents ask for too much.

        None is as many as it leaves. A prompt that is too long is refused where requests are made.
        """
        return None if wanted is None or wanted < 0 else min(wanted, max(self.room - num_prompt_tokens, 1))


_BEGINNING = 2  # tokens at most that the output of an encoder-decoder begins with


def _salted(tenant: str, salt: str | None) -> str:
    """Who shares a cache: those of one key and one `cache_salt`."""
    return tenant if salt is None else f"{tenant}/{salt}"


def _chat_format(runtime: Runtime, settings: Settings) -> ChatFormat:
    loaded = runtime.loaded
    architecture = loaded.info.architecture if loaded.info else ""
    found = find_format(loaded.tokenizer, settings.chat_template, settings.response_template, architecture)
    return replace(found, takes_pictures=loaded.viewer is not None)
