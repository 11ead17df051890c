"""From a body of the Messages API to a conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paceline.server.errors import ApiError
from paceline.server.schemas.chat import CalledFunction, ChatBody, Function, Message, Tool, ToolCall
from paceline.server.schemas.messages import Content, MessagesBody, ToolChoice, Turn
from paceline.server.schemas.sampling import ResponseFormat, SamplingBody

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_BILLING = "x-anthropic-billing-header"  # a line of Claude Code's, new each time: no prompt would be found in the cache
_THOUGHTS = ("thinking", "redacted_thinking")


class Reading:
    """A body as a conversation; `ignored` names what had to be left out."""

    def __init__(self, body: MessagesBody) -> None:
        self.ignored: list[str] = []
        self._messages: list[Message] = []
        if system := _system(body.system):
            self._messages.append(Message(role="system", content=system))
        for i, turn in enumerate(body.messages):
            self._read(turn, f"messages[{i}]")
        self.tools = self._tools(body.tools or [])
        self.chat = self._chat(body)

    def _chat(self, body: MessagesBody) -> ChatBody:
        shared = {name: getattr(body, name) for name in SamplingBody.model_fields}
        config, choice = body.output_config, body.tool_choice
        thinks = {} if body.thinking is None else {"enable_thinking": body.thinking.type != "disabled"}
        return ChatBody.model_construct(
            **{**shared, "stop": body.stop_sequences or body.stop, "response_format": _form(body)},
            messages=self._messages,
            tools=self.tools or None,
            tool_choice=_tool_choice(choice),
            parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
            reasoning_effort=config.effort if config else None,
            chat_template_kwargs={**thinks, **(body.chat_template_kwargs or {})} or None,
        )

    def _read(self, turn: Turn, name: str) -> None:
        if isinstance(turn.content, str):
            self._messages.append(Message(role=turn.role, content=turn.content))
        elif turn.role == "assistant":
            self._messages.append(self._assistant(turn.content, name))
        else:
            self._messages += self._user(turn.role, turn.content, name)

    def _assistant(self, blocks: Sequence[Mapping[str, Any]], name: str) -> Message:
        texts, thoughts, calls = [], [], []
        for j, block in enumerate(blocks):
            kind, place = block.get("type"), f"{name}.content[{j}]"
            if kind == "tool_use":
                calls.append(_call(block, place))
            elif kind in _THOUGHTS:
                thoughts.append(str(block.get("thinking") or ""))
            elif str(kind).startswith("server_tool_use") or str(kind).endswith("_tool_result"):
                self.ignored.append(f"content:{str(kind)[:40]}")
            else:
                texts.append(_text(block, place))
        thought = "\n".join([thought for thought in thoughts if thought])
        return Message(
            role="assistant", content="\n".join(texts), tool_calls=calls or None, reasoning_content=thought or None
        )

    def _user(self, role: str, blocks: Sequence[Mapping[str, Any]], name: str) -> list[Message]:
        """Results of tools and texts, in their order."""
        messages: list[Message] = []
        for j, block in enumerate(blocks):
            place = f"{name}.content[{j}]"
            if block.get("type") == "tool_result":
                told = _result(block.get("content"), place)
                messages.append(Message(role="tool", content=told, tool_call_id=_name(block, "tool_use_id", place)))
            elif messages and messages[-1].role == role:
                text = f"{messages[-1].content}\n{_text(block, place)}"
                messages[-1] = Message(role=role, content=text)
            else:
                messages.append(Message(role=role, content=_text(block, place)))
        return messages or [Message(role=role, content="")]

    def _tools(self, given: Sequence[Mapping[str, Any]]) -> list[Tool]:
        tools = []
        for i, tool in enumerate(given):
            if tool.get("type", "custom") not in ("custom", None):
                self.ignored.append(f"tools:{str(tool['type'])[:40]}")
                continue
            place = f"tools[{i}]"
            told, schema = tool.get("description"), tool.get("input_schema")
            if not isinstance(told, str | None) or not isinstance(schema, dict):
                raise ApiError(400, f"{place} has no input_schema; allowed: name, description, input_schema", place)
            own = {} if told is None else {"description": told}
            tools.append(Tool(function=Function(name=_name(tool, "name", place), parameters=schema, **own)))
        return tools


def _system(given: Content | None) -> str:
    if given is None or isinstance(given, str):
        lines = (given or "").split("\n")
        return "\n".join(lines[1:] if lines[0].startswith(_BILLING) else lines)
    texts = [_text(block, f"system[{j}]") for j, block in enumerate(given)]
    return "\n".join([text for text in texts if not text.startswith(_BILLING)])


def _text(block: Mapping[str, Any], place: str) -> str:
    """The text of a block; a reference to a tool is its name."""
    key = {"text": "text", "tool_reference": "tool_name"}.get(str(block.get("type")), "")
    text = block.get(key)
    if not isinstance(text, str):
        kind = str(block.get("type"))[:60]
        raise ApiError(400, f"{place} is {kind!r}; allowed: text, this model reads text alone", place)
    return text


def _result(content: Any, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list) or not all(isinstance(block, Mapping) for block in content):
        raise ApiError(400, f"{place}.content is {str(content)[:60]}; allowed: a text or blocks", f"{place}.content")
    return "\n".join([_text(block, f"{place}.content[{k}]") for k, block in enumerate(content)])


def _call(block: Mapping[str, Any], place: str) -> ToolCall:
    given = block.get("input", {})
    if not isinstance(given, dict):
        raise ApiError(400, f"{place}.input is {str(given)[:60]}; allowed: an object", f"{place}.input")
    function = CalledFunction(name=_name(block, "name", place), arguments=json.dumps(given, ensure_ascii=False))
    return ToolCall(id=_name(block, "id", place), type="function", function=function)


def _name(block: Mapping[str, Any], key: str, place: str) -> str:
    value = block.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise ApiError(400, f"{place}.{key} is {str(value)[:60]!r}; allowed: 1 to 256 characters", f"{place}.{key}")
    return value


def _tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None or choice.type != "tool":
        return None if choice is None else _CHOICES[choice.type]
    return {"type": "function", "function": {"name": choice.name}}


def _form(body: MessagesBody) -> ResponseFormat | None:
    own = body.output_format or (body.output_config.format if body.output_config else None)
    if own is None:
        return body.response_format
    named = {"name": "answer", "schema": own.json_schema}
    return ResponseFormat.model_validate({"type": "json_schema", "json_schema": named})
