"""Answers as the Messages API has them: whole, and as the events that clients build them from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from paceline.server.chat.parts import Block, Change, Grown, Opened

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def ending(reason: str | None, stop_reason: str | int | None) -> dict[str, Any]:
    """Why an answer ended, and the stop string that ended it."""
    stop = stop_reason if reason == "stop" and isinstance(stop_reason, str) else None
    told = "stop_sequence" if stop else _REASONS.get(str(reason), "end_turn")
    return {"stop_reason": told, "stop_sequence": stop}


def usage_of(found: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens read and written; those that were found in the cache are counted apart."""
    cached = found["prompt_tokens_details"]["cached_tokens"]
    return {
        "input_tokens": found["prompt_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": found["completion_tokens"],
    }


def content_of(block: Block) -> dict[str, Any]:
    """A whole block."""
    if block.kind == "call":
        arguments: Any = {}
        with suppress(ValueError):  # it was cut
            arguments = json.loads(block.text)
        return {**_empty(block), "input": arguments if isinstance(arguments, dict) else {}}
    return {**_empty(block), ("text" if block.kind == "text" else "thinking"): block.text}


def event_of(change: Change) -> dict[str, Any]:
    """What a change of the blocks is told by."""
    if isinstance(change, Opened):
        return {"type": "content_block_start", "index": change.index, "content_block": _empty(change.block)}
    if isinstance(change, Grown):
        return {"type": "content_block_delta", "index": change.index, "delta": _delta(change.block, change.text)}
    return {"type": "content_block_stop", "index": change.index}


def _empty(block: Block) -> dict[str, Any]:
    if block.kind == "call":
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
    if block.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def _delta(block: Block, text: str) -> dict[str, Any]:
    if block.kind == "call":
        return {"type": "input_json_delta", "partial_json": text}
    if block.kind == "reasoning":
        return {"type": "thinking_delta", "thinking": text}
    return {"type": "text_delta", "text": text}
