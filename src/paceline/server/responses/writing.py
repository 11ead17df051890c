"""Answers as the Responses API has them: whole, and as the events that clients build them from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from paceline.server.chat.parts import Block, Change, Grown, Opened
from paceline.server.schemas.responses import ResponsesBody
from paceline.server.shapes import new_id

_KINDS = {"text": "msg", "reasoning": "rs", "call": "fc"}


class ResponseObject:
    """The object that a response is, in each of its states."""

    def __init__(self, body: ResponsesBody, model: str) -> None:
        self._told = {
            "id": new_id("resp", "_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "background": False,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "store": False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": _format(body)},
            "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
            "tools": [_described(tool) for tool in body.tools or [] if tool.get("type") == "function"],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
        }

    def at(
        self, status: str, output: Sequence[Mapping[str, Any]] = (), usage: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The object in a state."""
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        told = {"status": status, "error": None, "incomplete_details": cut, "output": list(output)}
        return {**self._told, **told, "usage": None if usage is None else _usage(usage)}

    def failed(self, message: str) -> dict[str, Any]:
        """The object after an error."""
        return {**self.at("failed"), "error": {"code": "server_error", "message": message}}


class Items:
    """The output items of an answer, and the events that tell of them."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self._id = ""  # of the item that is open

    def events(self, change: Change, status: str = "completed") -> list[dict[str, Any]]:
        """What a change of the blocks is told by; `status` is that of items which end."""
        block, place = change.block, {"output_index": change.index}
        if isinstance(change, Opened):
            self._id = new_id(_KINDS[block.kind], "_")
            item = _item(block, self._id, "in_progress")
            added = {"type": "response.output_item.added", **place, "item": item}
            return [added, *_part_added(block, {"item_id": self._id, **place})]
        if isinstance(change, Grown):
            return [_delta(block, {"item_id": self._id, **place}, change.text)]
        item = _item(block, self._id, status)
        self.done.append(item)
        ended = {"type": "response.output_item.done", **place, "item": item}
        return [*_part_done(block, {"item_id": self._id, **place}), ended]


def _item(block: Block, item_id: str, status: str) -> dict[str, Any]:
    head = {"id": item_id, "status": status}
    is_new = status == "in_progress"
    if block.kind == "call":
        named = {"call_id": block.id, "name": block.name}
        return {"type": "function_call", **head, **named, "arguments": "" if is_new else block.text}
    content = [] if is_new else [_part(block, block.text)]
    if block.kind == "reasoning":
        return {"type": "reasoning", **head, "summary": [], "content": content}
    return {"type": "message", **head, "role": "assistant", "content": content}


def _part(block: Block, text: str) -> dict[str, Any]:
    if block.kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _part_added(block: Block, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    if block.kind == "call":
        return []
    return [{"type": "response.content_part.added", **place, "content_index": 0, "part": _part(block, "")}]


def _delta(block: Block, place: Mapping[str, Any], text: str) -> dict[str, Any]:
    if block.kind == "call":
        return {"type": "response.function_call_arguments.delta", **place, "delta": text}
    if block.kind == "reasoning":
        return {"type": "response.reasoning_text.delta", **place, "content_index": 0, "delta": text}
    return {"type": "response.output_text.delta", **place, "content_index": 0, "delta": text, "logprobs": []}


def _part_done(block: Block, place: Mapping[str, Any]) -> list[dict[str, Any]]:
    if block.kind == "call":
        done = {"type": "response.function_call_arguments.done", **place}
        return [{**done, "name": block.name, "arguments": block.text}]
    ended = {"type": "response.content_part.done", **place, "content_index": 0, "part": _part(block, block.text)}
    if block.kind == "reasoning":
        done = {"type": "response.reasoning_text.done", **place, "content_index": 0, "text": block.text}
        return [done, ended]
    done = {"type": "response.output_text.done", **place, "content_index": 0, "text": block.text, "logprobs": []}
    return [done, ended]


def _usage(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input_tokens": found["prompt_tokens"],
        "input_tokens_details": found["prompt_tokens_details"],
        "output_tokens": found["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": found["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": found["total_tokens"],
    }


def _format(body: ResponsesBody) -> dict[str, Any]:
    form = body.text.format if body.text else None
    return {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)


def _described(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": None, "parameters": None, "strict": False, **tool}
