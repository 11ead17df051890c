"""`POST /v1/chat/completions`: a conversation is gone on with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline.server.bodies import JsonRoute
from paceline.server.deps import Tenant, TheService
from paceline.server.errors import ApiError
from paceline.server.events import ALIVE, DONE, EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.generation import Generation
from paceline.server.rendering import rendered
from paceline.server.schemas.chat import ChatBody
from paceline.server.service import Service
from paceline.server.shapes import chat_logprobs, new_id, usage
from paceline.server.streaming import failed, ignored_header, stream_options

router = APIRouter(route_class=JsonRoute, tags=["generation"])


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request, service: TheService, tenant: Tenant) -> Response:
    """Answer a conversation, `n` times."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    changes = _changes(body)
    generation = await service.generation(lambda: [rendered(service, body)], body, changes, tenant)
    answer = _Answer(service, body, generation)
    headers = ignored_header(ignored)
    if body.stream:
        return EventStream(answer.events(), service.settings.limits.write_seconds, headers)
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


def _changes(body: ChatBody) -> dict[str, Any]:
    """Options whose names or forms are the chat's own."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs is given without logprobs; allowed: with logprobs: true", "top_logprobs")
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return {"max_tokens": limit, "logprobs": (body.top_logprobs or 0) if body.logprobs else None}


class _Answer:
    """The response to one body."""

    def __init__(self, service: Service, body: ChatBody, generation: Generation) -> None:
        self._service, self._body, self._generation = service, body, generation
        self._begun: set[int] = set()  # choices whose first chunk, with the role, has been sent
        self._head = {
            "id": new_id("chatcmpl"),
            "object": "chat.completion.chunk" if body.stream else "chat.completion",
            "created": int(time.time()),
            "model": body.model or service.name,
            "system_fingerprint": service.fingerprint,
        }

    async def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        tokens = await self._generation.finish()
        choices = []
        for index, request in enumerate(self._generation.requests):
            text = "".join([token.text for token in tokens[index]])
            message = {"role": "assistant", "content": text, "refusal": None}
            choices.append(self._choice(index, {"message": message}, tokens[index], request.finish_reason))
        return {**self._head, "choices": choices, "usage": self._usage()}

    async def events(self) -> AsyncIterator[bytes]:
        """Those of a stream: role with the first text, texts, each sample's end, usage if it is asked for."""
        with_usage, with_running_usage = stream_options(self._body)
        try:
            async for piece in self._generation.pieces(self._service.settings.limits.silence_seconds):
                if piece is None:
                    yield ALIVE
                    continue
                running = {"usage": self._usage()} if with_running_usage else {}
                if piece.tokens:
                    choice = self._choice(piece.index, {"delta": self._delta(piece.index, piece.text)}, piece.tokens)
                    yield event({**self._head, "choices": [choice], **running})
                if piece.is_last:
                    reason = self._generation.requests[piece.index].finish_reason
                    choice = self._choice(piece.index, {"delta": {}}, [], reason)
                    yield event({**self._head, "choices": [choice], **running})
            if with_usage:
                yield event({**self._head, "choices": [], "usage": self._usage()})
        except Exception as error:
            yield failed(error, str(self._head["id"]))
        yield DONE

    def _delta(self, index: int, text: str) -> dict[str, Any]:
        if index in self._begun:
            return {"content": text}
        self._begun.add(index)
        return {"role": "assistant", "content": text}

    def _choice(
        self, index: int, content: dict[str, Any], tokens: list[Any], reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(tokens, self._service.text_of) if self._body.logprobs and tokens else None
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}

    def _usage(self) -> dict[str, Any]:
        return usage(self._generation.requests, len(self._generation.requests))
