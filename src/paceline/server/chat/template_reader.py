"""Answers read by a response template, transformers' declarative description of how a model writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers.utils.chat_parsing import ResponseParser

from paceline.engine.request import Token
from paceline.params import SamplingParams
from paceline.server.chat.marked import Marked
from paceline.server.chat.parts import Arguments, Call, Part, Reasoning, Text, new_call_id
from paceline.server.chat.tools import ToolUse
from paceline.text.stream import TextStream

_REASONING = ("reasoning_content", "thinking", "reasoning")  # the names that templates in use give it
_CALLS = "tool_calls"
_CONTENT = "content"


class TemplateReader:
    """Content and reasoning as they come, calls when they are complete; what cannot be read is given as text.

    Args:
        response_template: the model's.
        marked: decodes its tokens.
        prompt: it may hold the beginning of the answer, the mark that opens the reasoning, say.
        params: its stop strings end the answer here as they do in the engine.
        tools: those that may be called; without any, calls are text.
    """

    def __init__(
        self,
        response_template: Mapping[str, Any],
        marked: Marked,
        prompt: Sequence[int],
        params: SamplingParams,
        tools: ToolUse,
    ) -> None:
        self.num_calls = 0
        self.num_reasoning_tokens = 0
        self._tools = tools
        self._parser = _parser(response_template, marked.decode(prompt), tools)
        decode = marked.decode if params.skip_special_tokens else marked.decode_all
        self._stream = TextStream(decode, prompt, params.stop, params.include_stop_str_in_output)
        self._num_tokens, self._min_tokens = 0, params.min_tokens
        self._written = ""  # all that the model wrote
        self._given = 0  # how much of it has become parts
        self._stop: str | None = None  # where it ended
        self._is_broken = False  # nothing more is read
        self._body: list[str] = []  # of the call that is being written
        close = response_template["fields"].get(_CALLS, {}).get("close")
        self._close = close if isinstance(close, str) else ""  # what ends it, if that is one text
        self._region: str | None = None
        self._follow(self._parser.initial_events)  # of the prompt: nothing to give out

    def read(self, tokens: Sequence[Token]) -> list[Part]:
        """The parts that the tokens complete."""
        parts: list[Part] = []
        for token in tokens:
            self._num_tokens += 1
            self.num_reasoning_tokens += self._region in _REASONING
            text, self._stop = self._stream.push(token.id, check_stop=self._num_tokens > self._min_tokens)
            parts += self._fed(text)
        return parts

    def finish(self, rest: str) -> list[Part]:
        """What had been held back; the rest is known here."""
        parts = self._fed(self._stream.finish() if self._stop is None else "")
        if self._is_broken:
            return parts
        try:
            _, events = self._parser.finalize()
            return parts + self._parts(events)
        except Exception:  # a call that was cut, or is none
            return parts + self._as_written()

    def _fed(self, text: str) -> list[Part]:
        self._written += text
        if self._is_broken:
            return self._as_written()
        try:
            return self._parts(self._parser.feed(text)) if text else []
        except Exception:  # of the content's own parser, which may raise anything
            return self._as_written()

    def _as_written(self) -> list[Part]:
        """All that is left, as text."""
        self._is_broken, self._region = True, None
        text, self._given = self._written[self._given :], len(self._written)
        return [Text(text)] if text else []

    def _parts(self, events: Sequence[Mapping[str, Any]]) -> list[Part]:
        parts: list[Part] = []
        for event in self._follow(events):
            field = event["field"]
            if field == _CALLS:
                parts += self._calling(event)
            elif event["type"] == "region_chunk":
                self._pass_over(event["text"])
                parts += self._spoken(field, event["text"])
        return parts

    def _spoken(self, field: str, text: str) -> list[Part]:
        if field in _REASONING:
            return [Reasoning(text)]
        return [Text(text)] if field == _CONTENT else []

    def _calling(self, event: Mapping[str, Any]) -> list[Part]:
        if event["type"] == "region_chunk":
            self._body.append(event["text"])
        if event["type"] != "region_close":
            return []
        parts = self._called(event["value"])
        self._pass_over("".join(self._body) + self._close)
        self._body = []
        return parts

    def _called(self, value: Any) -> list[Part]:
        calls = [_function(one) for one in (value if isinstance(value, list) else [value])]
        parts: list[Part] = []
        for name, arguments in calls:
            if self._tools.is_single and self.num_calls:
                break
            index, self.num_calls = self.num_calls, self.num_calls + 1
            parts += [Call(index, new_call_id(), name), Arguments(index, arguments)]
        return parts

    def _follow(self, events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        for event in events:
            if event["type"] != "region_chunk":
                self._region = event["field"] if event["type"] == "region_open" else None
        return events

    def _pass_over(self, text: str) -> None:
        found = self._written.find(text, self._given)
        if found >= 0:
            self._given = found + len(text)


def _parser(response_template: Mapping[str, Any], prompt: str, tools: ToolUse) -> Any:
    template = dict(response_template)
    if not tools.described:
        template["fields"] = {name: field for name, field in template["fields"].items() if name != _CALLS}
    return ResponseParser(template, prefix=prompt, tools=tools.described or None)


def _function(value: Any) -> tuple[str, str]:
    """The name of a call, and its arguments as JSON."""
    function = value.get("function", value)
    name, arguments = function["name"], function.get("arguments", {})
    if not isinstance(name, str):
        raise ValueError("a call without a name")
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
