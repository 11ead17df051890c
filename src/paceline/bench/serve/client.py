"""One request over HTTP, timed: httpx, streaming, every read stamped when it arrives."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from paceline.bench.serve.answer import CUT, FAILED, OK, REFUSED, REJECTED, Answer
from paceline.bench.serve.counters import Counters, read_counters
from paceline.bench.serve.prompts import ServePrompt
from paceline.bench.serve.sse import DONE, EventParser
from paceline.errors import ConfigError, StateError, first_line

OPENAI, OPENAI_CHAT = "openai", "openai-chat"
BACKENDS = {OPENAI: "/v1/completions", OPENAI_CHAT: "/v1/chat/completions"}
DEADLINE = "deadline"  # vLLM's field stop_reason, as our server fills it
_DEADLINE_PASSED = 408
_SILENCE = 600.0  # seconds without a byte
_MAX_ERROR = 300  # characters of an error that are kept


@dataclass(frozen=True)
class Service:
    """Where to ask and how: a server, its endpoint, the model's name, and fields of every body."""

    base_url: str
    backend: str
    endpoint: str
    model: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def body(self, prompt: ServePrompt, more: Mapping[str, Any]) -> dict[str, Any]:
        """The request of a prompt; `more` wins over the service's fields, these over the prompt's."""
        usage = {"include_usage": True, "continuous_usage_stats": True}
        text = prompt.prompt if isinstance(prompt.prompt, str) else list(prompt.prompt)
        if self.backend == OPENAI_CHAT:
            asked = {"messages": [{"role": "user", "content": text}], "max_completion_tokens": prompt.max_tokens}
        else:
            asked = {"prompt": text, "max_tokens": prompt.max_tokens}
        common = {"model": self.model, "temperature": 0.0, "stream": True, "stream_options": usage}
        return {**common, **asked, **prompt.fields, **self.fields, **more}


class Client:
    """Connections to one server."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, endpoint: str, body: Mapping[str, Any], label: str, due: float) -> Answer:
        """Send a request and take its stream to the end; whatever happens is in the answer."""
        answer = Answer(label, due, time.perf_counter())
        try:
            async with self._http.stream("POST", endpoint, json=body) as response:
                answer.status = response.status_code
                if response.status_code == httpx.codes.OK:
                    answer.outcome = await _follow(response, answer)
                else:
                    answer.error = _message(await response.aread())
                    answer.outcome = _refusal(response.status_code, body)
        except (httpx.HTTPError, ValueError) as error:  # ValueError: an event that is no JSON
            answer.outcome, answer.error = FAILED, f"{type(error).__name__}: {first_line(error)}"[:_MAX_ERROR]
        answer.ended = time.perf_counter()
        return answer

    async def counters(self) -> Counters | None:
        """What /metrics counts now; None where there is none, or a page of another kind."""
        try:
            return read_counters((await self._http.get("/metrics")).raise_for_status().text)
        except (httpx.HTTPError, ValueError):
            return None

    async def first_model(self) -> str:
        """The first name in /v1/models.

        Raises:
            StateError: nothing listens there, or it says something else.
        """
        try:
            response = await self._http.get("/v1/models")
            return str(response.raise_for_status().json()["data"][0]["id"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise StateError(f"{self._http.base_url}v1/models: {type(error).__name__}: {first_line(error)}") from error

    async def token_ids(self, model: str, text: str) -> list[int]:
        """What the server's tokenizer makes of a text: /tokenize as vLLM has it, or as llama-server does.

        Raises:
            ConfigError: the server has no /tokenize.
        """
        for name in ("prompt", "content"):
            try:
                response = await self._http.post("/tokenize", json={"model": model, name: text})
                ids = response.raise_for_status().json()["tokens"]
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                continue
            if ids:
                return [int(one) for one in ids]
        raise ConfigError("dataset-name is 'random', and the server has no /tokenize; allowed: tasks, custom")


@asynccontextmanager
async def connected(base_url: str) -> AsyncIterator[Client]:
    """A client without limits of its own, so that only the server makes requests wait; the key is OPENAI_API_KEY.

    Each request has a connection of its own: llama-server closes one after a stream without saying so, and what is sent
    on it then is lost.
    """
    key = os.environ.get("OPENAI_API_KEY")
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, limits=limits, timeout=httpx.Timeout(_SILENCE), trust_env=False
    ) as http:
        yield Client(http)


async def _follow(response: httpx.Response, answer: Answer) -> str:
    """Take the stream; how it ended."""
    parser, is_done = EventParser(), False
    async for received in response.aiter_raw():
        at = time.perf_counter()
        for data in parser.feed(received):
            if data == DONE:
                is_done = True
            else:
                answer.take(json.loads(data), at)
    return _outcome(answer, is_done)


def _outcome(answer: Answer, is_done: bool) -> str:
    if answer.error is not None:
        return FAILED
    if answer.stop_reason == DEADLINE:
        return CUT  # perhaps before its first text
    if not is_done and answer.finish_reason is None:
        answer.error = "the stream ended without a finish_reason and without [DONE]"
        return FAILED
    if not answer.chunks:
        answer.error = "no chunk had text"
        return FAILED
    return OK


def _refusal(status: int, body: Mapping[str, Any]) -> str:
    return REFUSED if status == _DEADLINE_PASSED and "deadline_ms" in body else REJECTED


def _message(body: bytes) -> str:
    """What an error says, in the shape of OpenAI's or as it is."""
    text = body.decode("utf-8", "replace")
    with suppress(ValueError, LookupError, TypeError):
        text = str(json.loads(text)["error"]["message"])
    return text[:_MAX_ERROR]
