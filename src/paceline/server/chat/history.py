"""The messages of a request, as the model's template wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paceline.server.chat.format import ChatFormat
from paceline.server.errors import ApiError
from paceline.server.schemas.chat import Message, ToolCall
from paceline.text.chat import is_picture
from paceline.text.pictures import data_of

_ROLES = ("system", "user", "assistant", "tool")
_OTHER_NAMES = {"developer": "system", "function": "tool"}
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def history(messages: Sequence[Message], form: ChatFormat) -> list[dict[str, Any]]:
    """The messages with roles, contents and calls in the one form that the template reads.

    Raises:
        ApiError: an unknown role, a content that is no text, a call whose arguments are no JSON object.
    """
    return [_written(message, f"messages[{i}]", form) for i, message in enumerate(messages)]


def merged(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with all that the system says in one, in front."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    if not system:
        return rest
    are_texts = isinstance(system[0], str)
    content = "\n\n".join(system) if are_texts else [part for parts in system for part in parts]
    return [{"role": "system", "content": content}, *rest]


def _written(message: Message, name: str, form: ChatFormat) -> dict[str, Any]:
    written = {key: value for key, value in message.model_dump(exclude_unset=True).items() if value is not None}
    written["role"] = _role(message.role, name, form)
    if "function_call" in written:
        raise ApiError(400, f"{name}.function_call is not supported; allowed: tool_calls", f"{name}.function_call")
    written["content"] = _content(message.content, name, form)
    written.pop("tool_calls", None)
    if message.tool_calls:
        written["tool_calls"] = [
            _call(call, f"{name}.tool_calls[{i}]", form) for i, call in enumerate(message.tool_calls)
        ]
    reasoning = message.reasoning_content or message.reasoning
    return {**written, "reasoning_content": reasoning} if reasoning else written


def _content(content: Any, name: str, form: ChatFormat) -> str | list[dict[str, Any]]:
    """What a message says: as parts where it has pictures, or where the template wants them; else a text."""
    if form.takes_pictures and isinstance(content, list) and any(is_picture(part) for part in content):
        named = [(part, f"{name}.content[{j}]") for j, part in enumerate(content)]
        return [_picture(p, n) if is_picture(p) else {"type": "text", "text": _text(p, n)} for p, n in named]
    texts = texts_of(content, name)
    return [{"type": "text", "text": text} for text in texts] if form.wants_parts else "\n".join(texts)


def _picture(part: Any, name: str) -> dict[str, Any]:
    """The bytes of a picture, sent along in a `data:` URL: a server that fetches is a door to its network."""
    found = part.get("image_url")
    url = found.get("url") if isinstance(found, dict) else found
    if not isinstance(url, str) or not url.startswith("data:"):
        raise ApiError(400, f"{name} is at {str(url)[:60]!r}; allowed: data:image/…;base64,…, nothing is fetched", name)
    return {"type": "image", "image": data_of(url, name)}


def _role(role: str, name: str, form: ChatFormat) -> str:
    if role == "developer" and form.has_developer:
        return role
    known = _OTHER_NAMES.get(role, role)
    if known not in _ROLES:
        allowed = ", ".join((*_ROLES, *_OTHER_NAMES))
        raise ApiError(400, f"{name}.role is {role[:60]!r}; allowed: {allowed}", f"{name}.role")
    return known


def texts_of(content: Any, name: str) -> list[str]:
    """The texts of a content: one, or those of its parts.

    Raises:
        ApiError: a part that is no text; `name` is the message's.
    """
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list | None):
        raise ApiError(400, f"{name}.content is {str(content)[:60]}; allowed: a text or parts", f"{name}.content")
    return [_text(part, f"{name}.content[{j}]") for j, part in enumerate(content or [])]


def _text(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
    text = part.get(_TEXTS.get(str(kind), "")) if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise ApiError(400, f"{name} is {str(kind)[:60]!r}; allowed: text parts, this model reads text alone", name)
    return text


def _call(call: ToolCall, name: str, form: ChatFormat) -> dict[str, Any]:
    arguments = call.function.arguments or {}
    if form.wants_mappings:
        arguments = _mapping(arguments, f"{name}.function.arguments")
    elif not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    told = {} if call.id is None else {"id": call.id}
    return {**told, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _mapping(arguments: str | dict[str, Any], name: str) -> dict[str, Any]:
    value: Any = arguments
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ApiError(400, f"{name} is {str(arguments)[:60]!r}; allowed: a JSON object", name)
    return value
