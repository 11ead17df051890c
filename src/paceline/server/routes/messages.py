"""`POST /v1/messages` and `/v1/messages/count_tokens`: what Claude Code speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline.server.bodies import JsonRoute
from paceline.server.chat.conversation import Conversation, begin, prompt_of
from paceline.server.chat.parts import Blocks, put_together
from paceline.server.chat.tools import tool_use
from paceline.server.deps import Tenant, TheService
from paceline.server.errors import MESSAGES, as_api_error
from paceline.server.events import EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.messages.reading import Reading
from paceline.server.messages.writing import content_of, ending, event_of, usage_of
from paceline.server.schemas.messages import MessagesBody
from paceline.server.shapes import new_id
from paceline.server.streaming import ignored_header

router = APIRouter(route_class=JsonRoute, tags=["generation"])


@router.post(MESSAGES)
async def messages(body: MessagesBody, request: Request, service: TheService, tenant: Tenant) -> Response:
    """Answer a conversation."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    reading = Reading(body)
    conversation = await begin(service, reading.chat, {}, tenant)
    answer = _Answer(body.model or service.name, conversation)
    headers = {**ignored_header([*ignored, *reading.ignored]), **conversation.headers}
    if body.stream:
        limits = service.settings.limits
        return EventStream(answer.events(limits.silence_seconds), conversation.give_up, limits.write_seconds, headers)
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


@router.post(f"{MESSAGES}/count_tokens")
async def count_tokens(body: MessagesBody, service: TheService) -> Response:
    """How many tokens the prompt of a conversation has."""
    check_extras(body, service.settings.strict)
    service.check_model(body.model)
    chat = Reading(body).chat
    tools = tool_use(chat, service.chat_format)
    prompt = await service.in_thread(lambda: prompt_of(service, chat, tools))
    return JsonResponse({"input_tokens": len(prompt.ids)}, headers=prompt.headers)


class _Answer:
    """The response to one body."""

    def __init__(self, model: str, conversation: Conversation) -> None:
        self._conversation, self._blocks = conversation, Blocks()
        self._head = {"id": new_id("msg", "_"), "type": "message", "role": "assistant", "model": model}
        self._is_begun = False

    async def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        (sample,) = await self._conversation.finish()
        content = [content_of(block) for block in put_together(sample.parts)]
        return {**self._head, "content": content, **self._ending(), "usage": self._usage()}

    async def events(self, silence: float) -> AsyncIterator[bytes]:
        """Those of a stream; the first comes with the first part, when it is known what the cache had."""
        try:
            async for reading in self._conversation.readings(silence):
                if reading is None:
                    yield _event({"type": "ping"})
                    continue
                if not self._is_begun:
                    self._is_begun = True
                    yield self._start()
                for change in [change for part in reading.parts for change in self._blocks.add(part)]:
                    yield _event(event_of(change))
            for change in self._blocks.finish():
                yield _event(event_of(change))
            yield _event({"type": "message_delta", "delta": self._ending(), "usage": self._usage()})
            yield _event({"type": "message_stop"})
        except Exception as error:
            yield _event(as_api_error(error, str(self._head["id"])).body(MESSAGES))

    def _start(self) -> bytes:
        begun: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        return _event({"type": "message_start", "message": {**self._head, **begun, "usage": self._usage()}})

    def _ending(self) -> dict[str, Any]:
        return ending(self._conversation.finish_reason(0), self._conversation.requests[0].stop_reason)

    def _usage(self) -> dict[str, Any]:
        return usage_of(self._conversation.usage())


def _event(told: dict[str, Any]) -> bytes:
    return event(told, told["type"])
