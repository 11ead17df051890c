"""`POST /v1/responses`: what Codex speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline.server.bodies import JsonRoute
from paceline.server.chat.conversation import Conversation, begin
from paceline.server.chat.parts import Blocks, Change
from paceline.server.deps import Tenant, TheService
from paceline.server.errors import as_api_error
from paceline.server.events import ALIVE, EventStream, JsonResponse, event, while_connected
from paceline.server.fields import check_extras
from paceline.server.responses.reading import Reading
from paceline.server.responses.writing import Items, ResponseObject
from paceline.server.schemas.responses import ResponsesBody
from paceline.server.streaming import ignored_header

router = APIRouter(route_class=JsonRoute, tags=["generation"])


@router.post("/v1/responses")
async def responses(body: ResponsesBody, request: Request, service: TheService, tenant: Tenant) -> Response:
    """Answer a history; nothing of it is kept."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    reading = Reading(body)
    conversation = await begin(service, reading.chat, {}, tenant)
    answer = _Answer(ResponseObject(body, body.model or service.name), conversation)
    headers = {**ignored_header([*ignored, *reading.ignored]), **conversation.headers}
    if body.stream:
        limits = service.settings.limits
        return EventStream(answer.events(limits.silence_seconds), conversation.give_up, limits.write_seconds, headers)
    return JsonResponse(await while_connected(request, answer.whole()), headers=headers)


class _Answer:
    """The response to one body."""

    def __init__(self, response: ResponseObject, conversation: Conversation) -> None:
        self._response, self._conversation = response, conversation
        self._blocks, self._items = Blocks(), Items()
        self._count = 0  # events so far

    async def whole(self) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        (sample,) = await self._conversation.finish()
        for change in [change for part in sample.parts for change in self._blocks.add(part)]:
            self._items.events(change)
        return self._ended()[-1]["response"]  # type: ignore[no-any-return]

    async def events(self, silence: float) -> AsyncIterator[bytes]:
        """Those of a stream; the last holds the whole response again."""
        for kind in ("created", "in_progress"):
            yield self._event({"type": f"response.{kind}", "response": self._response.at("in_progress")})
        try:
            async for reading in self._conversation.readings(silence):
                if reading is None:
                    yield ALIVE
                    continue
                for part in reading.parts:
                    for told in self._told(self._blocks.add(part)):
                        yield self._event(told)
            for told in self._ended():
                yield self._event(told)
        except Exception as error:
            failed = self._response.failed(str(as_api_error(error).detail))
            yield self._event({"type": "response.failed", "response": failed})

    def _told(self, changes: Sequence[Change], status: str = "completed") -> list[dict[str, Any]]:
        return [told for change in changes for told in self._items.events(change, status)]

    def _ended(self) -> list[dict[str, Any]]:
        """The events that end the answer; a limit leaves its last item incomplete."""
        status = "incomplete" if self._conversation.finish_reason(0) == "length" else "completed"
        told = self._told(self._blocks.finish(), status)
        whole = self._response.at(status, self._items.done, self._conversation.usage())
        return [*told, {"type": f"response.{status}", "response": whole}]

    def _event(self, told: dict[str, Any]) -> bytes:
        number, self._count = self._count, self._count + 1
        return event({**told, "sequence_number": number}, told["type"])
