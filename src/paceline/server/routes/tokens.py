"""`POST /tokenize` and `/detokenize`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from paceline.server.bodies import JsonRoute
from paceline.server.chat.conversation import prompt_of
from paceline.server.chat.tools import tool_use
from paceline.server.deps import TheService
from paceline.server.errors import ApiError
from paceline.server.events import JsonResponse
from paceline.server.fields import check_extras
from paceline.server.schemas.chat import ChatBody
from paceline.server.schemas.tokens import DetokenizeBody, TokenizeBody
from paceline.server.service import Service
from paceline.server.streaming import ignored_header

router = APIRouter(route_class=JsonRoute, tags=["tokens"])


@router.post("/tokenize")
async def tokenize(body: TokenizeBody, service: TheService) -> Response:
    """The token ids of a text or a conversation."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    ids = await service.in_thread(lambda: _ids(service, body))
    answer: dict[str, Any] = {"count": len(ids), "max_model_len": service.room, "tokens": ids}
    if body.return_token_strs:
        answer["token_strs"] = [service.text_of(token) for token in ids]
    return JsonResponse(answer, headers=ignored_header(ignored))


@router.post("/detokenize")
async def detokenize(body: DetokenizeBody, service: TheService) -> Response:
    """The text of token ids, under both names."""
    ignored = check_extras(body, service.settings.strict)
    service.check_model(body.model)
    size = service.runtime.loaded.target.vocab_size
    for place, token in enumerate(body.tokens):
        if not 0 <= token < size:
            raise ApiError(400, f"tokens[{place}] is {token}; allowed: 0 to {size - 1}", f"tokens[{place}]")
    text = await service.in_thread(lambda: service.runtime.factory.tokenizer.decode(body.tokens))
    return JsonResponse({"prompt": text, "content": text}, headers=ignored_header(ignored))


def _ids(service: Service, body: TokenizeBody) -> list[int]:
    tokenizer = service.runtime.factory.tokenizer
    if body.messages is not None:
        fields = body.model_dump(include=set(ChatBody.model_fields), exclude_none=True, exclude_unset=True)
        chat = ChatBody.model_validate(fields)
        return prompt_of(service, chat, tool_use(chat, service.chat_format)).ids
    text = body.prompt if body.prompt is not None else body.content
    if text is None:
        raise ApiError(400, "prompt is missing; allowed: prompt, content or messages", "prompt")
    is_plain = body.add_special_tokens is False or not text
    return list(tokenizer.inner(text, add_special_tokens=False)["input_ids"]) if is_plain else tokenizer.encode(text)
