"""From a body of the Responses API to a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paceline.server.chat.history import texts_of
from paceline.server.errors import ApiError
from paceline.server.schemas.chat import CalledFunction, ChatBody, Function, Message, Tool, ToolCall
from paceline.server.schemas.responses import ResponsesBody, TextFormat
from paceline.server.schemas.sampling import ResponseFormat, SamplingBody

_ROLES = ("user", "assistant", "system", "developer")


class Reading:
    """A body as a conversation; `ignored` names what had to be left out."""

    def __init__(self, body: ResponsesBody) -> None:
        self.ignored: list[str] = []
        self._messages: list[Message] = []
        self._reasoning: str | None = None  # of the assistant's next message
        for name in body.include or []:
            if name.endswith(".logprobs"):
                raise ApiError(400, f"include has {name}; allowed: logprobs of /v1/chat/completions", "include")
        if body.text and body.text.verbosity not in (None, "medium"):
            self.ignored.append("text.verbosity")
        if body.instructions:
            self._messages.append(Message(role="system", content=body.instructions))
        if isinstance(body.input, str):
            self._messages.append(Message(role="user", content=body.input))
        else:
            for i, item in enumerate(body.input):
                self._read(item, f"input[{i}]")
        if not self._messages:
            raise ApiError(400, "input has no messages; allowed: at least one", "input")
        self.tools = self._tools(body.tools or [])
        self.chat = self._chat(body)

    def _chat(self, body: ResponsesBody) -> ChatBody:
        shared = {name: getattr(body, name) for name in SamplingBody.model_fields if name in _SHARED}
        limit = body.max_tokens if body.max_output_tokens is None else body.max_output_tokens
        own = _response_format(body.text.format if body.text else None)
        return ChatBody.model_construct(
            **{**shared, "max_tokens": limit, "response_format": own or body.response_format},
            messages=self._messages,
            tools=self.tools or None,
            tool_choice=_tool_choice(body.tool_choice),
            parallel_tool_calls=body.parallel_tool_calls,
            reasoning_effort=body.reasoning.effort if body.reasoning else None,
            chat_template_kwargs=body.chat_template_kwargs,
        )

    def _read(self, item: Mapping[str, Any], name: str) -> None:
        kind = item.get("type", "message")
        if kind == "message":
            self._add(*_said(item, name))
        elif kind == "function_call":
            self._call(item, name)
        elif kind == "function_call_output":
            told = item.get("output")
            text = told if isinstance(told, str) else _joined(told, f"{name}.output")
            self._messages.append(Message(role="tool", content=text, tool_call_id=_field(item, "call_id", name)))
        elif kind == "reasoning":
            self._reasoning = _thought(item) or self._reasoning
        elif kind == "item_reference":
            raise ApiError(400, f"{name} is a reference; allowed: whole items, nothing is kept here", name)
        else:
            self.ignored.append(f"input:{str(kind)[:40]}")

    def _add(self, role: str, text: str) -> None:
        thought = self._reasoning if role == "assistant" else None
        self._reasoning = None
        self._messages.append(Message(role=role, content=text, reasoning_content=thought))

    def _call(self, item: Mapping[str, Any], name: str) -> None:
        """A call belongs to what the assistant said before it."""
        if not self._messages or self._messages[-1].role != "assistant" or self._reasoning:
            self._add("assistant", "")
        function = CalledFunction(name=_field(item, "name", name), arguments=str(item.get("arguments") or "{}"))
        call = ToolCall(id=_field(item, "call_id", name), type="function", function=function)
        last = self._messages[-1]
        self._messages[-1] = last.model_copy(update={"tool_calls": [*(last.tool_calls or []), call]})

    def _tools(self, given: Sequence[Mapping[str, Any]]) -> list[Tool]:
        tools = []
        for i, tool in enumerate(given):
            if tool.get("type") != "function":
                self.ignored.append(f"tools:{str(tool.get('type'))[:40]}")
                continue
            own = {key: tool[key] for key in ("description", "parameters") if tool.get(key) is not None}
            tools.append(Tool(function=Function(name=_field(tool, "name", f"tools[{i}]"), **_checked(own, i))))
        return tools


# `stream_options` is another thing here.
_SHARED = frozenset(SamplingBody.model_fields) - {"stream_options", "max_tokens", "response_format"}


def _said(item: Mapping[str, Any], name: str) -> tuple[str, str]:
    role = item.get("role")
    if role not in _ROLES:
        raise ApiError(400, f"{name}.role is {str(role)[:60]!r}; allowed: {', '.join(_ROLES)}", f"{name}.role")
    return str(role), "\n".join(texts_of(item.get("content"), name))


def _joined(told: Any, name: str) -> str:
    if isinstance(told, list):
        return "\n".join(texts_of(told, name))
    return "" if told is None else json.dumps(told, ensure_ascii=False)


def _thought(item: Mapping[str, Any]) -> str:
    """The text of a reasoning item: its own, or else its summary."""
    found = item.get("content") or item.get("summary")
    parts = found if isinstance(found, list) else []
    return "\n".join([str(part["text"]) for part in parts if isinstance(part, Mapping) and "text" in part])


def _field(item: Mapping[str, Any], key: str, name: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ApiError(400, f"{name}.{key} is {str(value)[:60]!r}; allowed: 1 to 256 characters", f"{name}.{key}")
    return value


def _checked(own: dict[str, Any], i: int) -> dict[str, Any]:
    for key, kind in (("description", str), ("parameters", dict)):
        if key in own and not isinstance(own[key], kind):
            place = f"tools[{i}].{key}"
            raise ApiError(400, f"{place} is {str(own[key])[:60]}; allowed: a {kind.__name__}", place)
    return own


def _tool_choice(given: Any) -> Any:
    if isinstance(given, Mapping) and given.get("type") == "function" and "name" in given:
        return {"type": "function", "function": {"name": given["name"]}}
    return given


def _response_format(form: TextFormat | None) -> ResponseFormat | None:
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return ResponseFormat.model_validate({"type": "json_object"})
    named = {"name": form.name, "schema": form.json_schema, "strict": form.strict}
    return ResponseFormat.model_validate({"type": "json_schema", "json_schema": named})
