"""Which tools a model may call, or must; a call that it must make is a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paceline.server.chat.format import ChatFormat
from paceline.server.errors import ApiError
from paceline.server.schemas.chat import ChatBody, Tool

# Nothing but names and arguments is left to the model: what stands between them has one spelling.
_SPELLING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_FOR_A_ROOT = ("$id", "$schema", "x-guidance")  # keys of a schema that it may not keep as a part of another


@dataclass(frozen=True)
class ToolUse:
    """The tools of one request."""

    described: list[dict[str, Any]] = field(default_factory=list)  # for the template
    forced: dict[str, Any] | None = None  # the JSON schema of the call that must be made
    is_single: bool = False  # calls after the first are left out

    @property
    def response_format(self) -> dict[str, Any]:
        """What makes the output that call."""
        return {"type": "json_schema", "json_schema": {"name": "call", "schema": self.forced}}


def tool_use(body: ChatBody, form: ChatFormat) -> ToolUse:
    """The tools of a request, none where they are not to be called.

    Raises:
        ApiError: a choice that there is not, or tools that this model cannot be given or read calls of.
    """
    tools, choice = body.tools or [], _choice(body.tool_choice)
    if choice == "none" or (not tools and choice == "auto"):
        return ToolUse()
    candidates = tools if choice in ("auto", "required") else _named(tools, choice)
    if not candidates:
        names = ", ".join([tool.function.name for tool in tools][:20]) or "a choice of tools that are given"
        raise ApiError(400, f"tool_choice is {choice[:60]!r}; allowed: none, auto, required, {names}", "tool_choice")
    is_forced = choice != "auto"
    _check(body, form, is_forced)
    described = [tool.model_dump(exclude_unset=True, exclude_none=True) | {"type": "function"} for tool in tools]
    return ToolUse(described, _schema(candidates) if is_forced else None, body.parallel_tool_calls is False)


def _choice(given: str | Mapping[str, Any] | None) -> str:
    """`none`, `auto`, `required`, or the name of a function."""
    if given is None:
        return "auto"
    if isinstance(given, str) and given in ("none", "auto", "required"):
        return given
    function = given.get("function") if isinstance(given, Mapping) and given.get("type") == "function" else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        allowed = 'none, auto, required, {"type": "function", "function": {"name": …}}'
        raise ApiError(400, f"tool_choice is {str(given)[:60]}; allowed: {allowed}", "tool_choice")
    return name


def _named(tools: Sequence[Tool], name: str) -> list[Tool]:
    return [tool for tool in tools if tool.function.name == name]


def _check(body: ChatBody, form: ChatFormat, is_forced: bool) -> None:
    if not form.takes_tools:
        allowed = "none for this model, whose chat template has no place for them (--chat-template)"
        raise ApiError(400, f"tools are given; allowed: {allowed}", "tools")
    if not is_forced and form.response_template is None:
        allowed = 'tool_choice "required" or a function, as nothing tells how this model writes calls'
        raise ApiError(400, f"tools are given; allowed: {allowed} (no response template)", "tools")
    if not is_forced and _is_structured(body):
        allowed = "tool_choice, or response_format without tools: its text leaves no place for a call"
        raise ApiError(400, f"tools are given beside response_format; allowed: {allowed}", "response_format")


def _is_structured(body: ChatBody) -> bool:
    form = body.response_format
    return body.structured_outputs is not None or (form is not None and form.type != "text")


def _schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of one call of one of the tools."""
    several = [_call(tool, f"#/anyOf/{i}") for i, tool in enumerate(tools)]
    schema = _call(tools[0], "#") if len(several) == 1 else {"anyOf": several}
    return {**schema, "x-guidance": _SPELLING}


def _call(tool: Tool, place: str) -> dict[str, Any]:
    given = tool.function.parameters or {"type": "object"}
    parameters = {key: value for key, value in given.items() if key not in _FOR_A_ROOT}
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.function.name},
            "arguments": _moved(parameters, f"{place}/properties/arguments"),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to itself are still right where it is a part of another."""
    if isinstance(schema, list):
        return [_moved(value, place) for value in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    target = schema.get("$ref")
    return {**moved, "$ref": place + target[1:]} if isinstance(target, str) and target.startswith("#") else moved
