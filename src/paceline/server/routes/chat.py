"""`POST /v1/chat/completions`: a conversation is gone on with."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline.engine.request import Token
from paceline.server.bodies import JsonRoute
from paceline.server.chat.conversation import Conversation, Reading, begin
from paceline.server.chat.parts import Arguments, Block, Call, Part, Reasoning, put_together
from paceline.server.deps import Tenant, TheService
from paceline.server.details import Details
from paceline.server.echo import prompt_logprobs_of
from paceline.server.errors import ApiError
from paceline.server.events import ALIVE, DONE, EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.schemas.chat import ChatBody
from paceline.server.service import Service
from paceline.server.shapes import chat_logprobs, metrics_of, new_id, stopped_of
from paceline.server.streaming import failed, ignored_header, stream_options

router = APIRouter(route_class=JsonRoute, tags=["generation"])


@router.post("/v1/chat/completions")
async def chat_completions(body: ChatBody, request: Request, service: TheService, tenant: Tenant) -> Response:
    """Answer a conversation, `n` times."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    options = stream_options(body)
    conversation = await begin(service, body, _changes(body), tenant)
    answer = _Answer(service, body, conversation)
    headers = {**ignored_header(ignored), **conversation.headers}
    if body.stream:
        return EventStream(
            answer.events(*options), conversation.give_up, service.settings.limits.write_seconds, headers
        )
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


def _changes(body: ChatBody) -> dict[str, Any]:
    """Options whose names or forms are the chat's own."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs is given without logprobs; allowed: with logprobs: true", "top_logprobs")
    if body.stream and body.prompt_logprobs is not None:
        raise ApiError(400, "prompt_logprobs is given with stream; allowed: without", "prompt_logprobs")
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return {"max_tokens": limit, "logprobs": logprobs, "prompt_logprobs": body.prompt_logprobs}


class _Answer:
    """The response to one body."""

    def __init__(self, service: Service, body: ChatBody, conversation: Conversation) -> None:
        self._service, self._body, self._conversation = service, body, conversation
        self._details = Details(service, body, conversation.requests)
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
        samples = await self._conversation.finish()
        choices = [
            self._choice(i, {"message": _message(put_together(self._shown(one.parts)))}, one.tokens, self._reason(i))
            for i, one in enumerate(samples)
        ]
        found = {**self._head, "choices": choices, **self._figures()}
        if self._body.prompt_logprobs is not None:  # of one prompt, whatever the number of samples
            request = self._conversation.requests[0]
            found["prompt_logprobs"] = prompt_logprobs_of(request, self._body.prompt_logprobs, self._service.text_of)
        return found

    async def events(self, with_usage: bool, with_running_usage: bool) -> AsyncIterator[bytes]:
        """Those of a stream: role with the first part, parts, each sample's end, usage if it is asked for."""
        try:
            async for reading in self._conversation.readings(self._service.settings.limits.silence_seconds):
                if reading is None:
                    yield ALIVE
                    continue
                running = {"usage": self._conversation.usage()} if with_running_usage else {}
                choices = self._choices(reading)
                if not choices:
                    yield ALIVE  # hidden reasoning
                for choice in choices:
                    yield event({**self._head, "choices": [choice], **running})
            if with_usage:
                yield event({**self._head, "choices": [], **self._figures()})
        except Exception as error:
            yield failed(error, str(self._head["id"]))
        yield DONE

    def _choices(self, reading: Reading) -> list[dict[str, Any]]:
        """The choices of a reading, each for a chunk of its own; the tokens go with the first."""
        index, tokens = reading.index, reading.tokens
        deltas = [_delta(part) for part in self._shown(reading.parts)]
        if not deltas and not reading.is_last and self._tells_tokens:
            deltas = [{}]
        if index not in self._begun:
            self._begun.add(index)
            first, *rest = deltas or [{"content": ""}]
            deltas = [{"role": "assistant", "content": None, **first}, *rest]
        choices = [self._choice(index, {"delta": delta}, [] if i else tokens) for i, delta in enumerate(deltas)]
        if reading.is_last:
            choices.append(self._choice(index, {"delta": {}}, [] if deltas else tokens, self._reason(index)))
        return choices

    def _shown(self, parts: Sequence[Part]) -> list[Part]:
        """Those that are asked for."""
        is_hidden = self._body.include_reasoning is False
        return [part for part in parts if not (is_hidden and isinstance(part, Reasoning))]

    @property
    def _tells_tokens(self) -> bool:
        """Whether tokens are told one by one: then those whose text is hidden are too."""
        body = self._body
        return bool(body.logprobs or body.return_token_ids or body.return_token_details)

    def _figures(self) -> dict[str, Any]:
        return {"usage": self._conversation.usage(), "metrics": metrics_of(self._conversation.requests)}

    def _choice(
        self, index: int, content: dict[str, Any], tokens: Sequence[Token], reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(tokens, self._service.text_of) if self._body.logprobs and tokens else None
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": reason}
        choice |= self._details.of(index, tokens, reason is not None)
        if reason is not None:
            request = self._conversation.requests[index]
            choice |= {"stop_reason": request.stop_reason, **stopped_of(request)}  # the first is vLLM's
        return {**choice, "token_ids": [token.id for token in tokens]} if self._body.return_token_ids else choice

    def _reason(self, index: int) -> str | None:
        return self._conversation.finish_reason(index)


def _message(blocks: Sequence[Block]) -> dict[str, Any]:
    content = "".join([block.text for block in blocks if block.kind == "text"])
    reasoning = "".join([block.text for block in blocks if block.kind == "reasoning"])
    calls = [
        {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": block.text}}
        for block in blocks
        if block.kind == "call"
    ]
    message: dict[str, Any] = {"role": "assistant", "content": content or (None if calls else ""), "refusal": None}
    if reasoning:
        message |= {"reasoning": reasoning, "reasoning_content": reasoning}
    return {**message, "tool_calls": calls} if calls else message


def _delta(part: Part) -> dict[str, Any]:
    if isinstance(part, Call):
        function = {"name": part.name, "arguments": ""}
        return {"tool_calls": [{"index": part.index, "id": part.id, "type": "function", "function": function}]}
    if isinstance(part, Arguments):
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}
    if isinstance(part, Reasoning):
        return {"reasoning": part.text, "reasoning_content": part.text}
    return {"content": part.text}
