"""`POST /v1/completions`: prompts are gone on with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline.server.bodies import JsonRoute
from paceline.server.deps import Tenant, TheService
from paceline.server.details import Details
from paceline.server.errors import ApiError
from paceline.server.events import ALIVE, DONE, EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.generation import Generation
from paceline.server.schemas.completion import CompletionBody
from paceline.server.service import Service
from paceline.server.shapes import CompletionLogprobs, metrics_of, new_id, usage
from paceline.server.streaming import failed, ignored_header, stream_options

router = APIRouter(route_class=JsonRoute, tags=["generation"])


@router.post("/v1/completions")
async def completions(body: CompletionBody, request: Request, service: TheService, tenant: Tenant) -> Response:
    """Continue one prompt or several, `n` times each."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    prompts = _prompts(service, body.prompt)
    with_usage = stream_options(body)
    read = partial(service.ids_of, prompts)
    generation = await service.generation(read, body, {"logprobs": body.logprobs}, tenant, len(prompts))
    answer = _Answer(service, body, generation, len(prompts))
    headers = ignored_header(ignored)
    if body.stream:
        return EventStream(
            answer.events(*with_usage), generation.give_up, service.settings.limits.write_seconds, headers
        )
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


def _prompts(service: Service, prompt: Any) -> list[Any]:
    """The prompts of a body, texts or token ids.

    Raises:
        ApiError: there are too many.
    """
    is_one = isinstance(prompt, str) or not prompt or isinstance(prompt[0], int)
    several = [prompt] if is_one else list(prompt)
    allowed = service.settings.limits.max_prompts
    if len(several) > allowed:
        raise ApiError(400, f"prompt has {len(several)} entries; allowed: {allowed}", "prompt")
    return several


class _Answer:
    """The response to one body."""

    def __init__(self, service: Service, body: CompletionBody, generation: Generation, num_prompts: int) -> None:
        self._service, self._body, self._generation = service, body, generation
        self._details = Details(service, body, generation.requests)
        self._num_samples = len(generation.requests) // num_prompts
        self._head = {
            "id": new_id("cmpl"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or service.name,
            "system_fingerprint": service.fingerprint,
        }
        self._logprobs = [CompletionLogprobs(service.text_of) for _ in generation.requests]

    async def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        tokens = await self._generation.finish()
        texts = ["".join([token.text for token in part]) for part in tokens]
        choices = [
            self._choice(index, texts[index], tokens[index], request.finish_reason)
            for index, request in enumerate(self._generation.requests)
        ]
        figures = {"usage": self._usage(), "metrics": metrics_of(self._generation.requests)}
        return {**self._head, "choices": choices, **figures}

    async def events(self, with_usage: bool, with_running_usage: bool) -> AsyncIterator[bytes]:
        """Those of a stream: texts as they come, then each sample's end, then the usage if it is asked for."""
        try:
            async for piece in self._generation.pieces(self._service.settings.limits.silence_seconds):
                if piece is None:
                    yield ALIVE
                    continue
                running = {"usage": self._usage()} if with_running_usage else {}
                if piece.tokens:
                    choice = self._choice(piece.index, piece.text, piece.tokens, None)
                    yield event({**self._head, "choices": [choice], **running})
                if piece.is_last:
                    reason = self._generation.requests[piece.index].finish_reason
                    yield event({**self._head, "choices": [self._choice(piece.index, "", [], reason)], **running})
            if with_usage:
                figures = {"usage": self._usage(), "metrics": metrics_of(self._generation.requests)}
                yield event({**self._head, "choices": [], **figures})
        except Exception as error:
            yield failed(error, str(self._head["id"]))
        yield DONE

    def _choice(self, index: int, text: str, tokens: list[Any], reason: str | None) -> dict[str, Any]:
        logprobs = self._logprobs[index].of(tokens) if self._body.logprobs is not None and tokens else None
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
        if self._body.return_token_ids:
            choice["token_ids"] = [token.id for token in tokens]
        return choice | self._details.of(index, tokens, reason is not None)

    def _usage(self) -> dict[str, Any]:
        return usage(self._generation.requests, self._num_samples)
