"""One conversation in the engine's care: every endpoint that answers messages reads it the same way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paceline.engine.request import Request, Token
from paceline.server.chat.format import ChatFormat
from paceline.server.chat.parts import Part
from paceline.server.chat.readers import ForcedCallReader, PlainReader, Reader
from paceline.server.chat.template_reader import TemplateReader
from paceline.server.chat.tools import ToolUse, tool_use
from paceline.server.generation import Generation
from paceline.server.rendering import Rendered, rendered
from paceline.server.schemas.chat import ChatBody
from paceline.server.service import Service
from paceline.server.shapes import usage


@dataclass(frozen=True, slots=True)
class Reading:
    """What has become of one sample since the last one: its parts, and the tokens that they are of."""

    index: int
    parts: list[Part]
    tokens: list[Token]
    is_last: bool


@dataclass
class Sample:
    """A whole answer."""

    parts: list[Part] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)


class Conversation:
    """Samples that answer a conversation."""

    def __init__(self, generation: Generation, readers: list[Reader], headers: Mapping[str, str]) -> None:
        self._generation, self._readers = generation, readers
        self._num_read = [0] * len(readers)  # characters of each text
        self.headers = headers

    @property
    def requests(self) -> list[Request]:
        """One for each sample."""
        return self._generation.requests

    async def readings(self, silence: float) -> AsyncIterator[Reading | None]:
        """What there is to show, as it comes; None where nothing was shown for `silence` seconds."""
        shown = time.monotonic()
        held: dict[int, list[Token]] = {}
        async for piece in self._generation.pieces(silence):
            reading = None
            if piece is not None:
                tokens = held.setdefault(piece.index, [])
                tokens += piece.tokens
                parts = self._parts(piece.index, piece.tokens, piece.is_last)
                if parts or piece.is_last:
                    reading = Reading(piece.index, parts, held.pop(piece.index), piece.is_last)
            if reading is not None or time.monotonic() - shown >= silence:
                shown = time.monotonic()
                yield reading

    async def finish(self) -> list[Sample]:
        """All samples, once all have ended."""
        samples = [Sample() for _ in self.requests]
        async for reading in self.readings(silence=3600.0):
            if reading is not None:
                samples[reading.index].parts += reading.parts
                samples[reading.index].tokens += reading.tokens
        return samples

    def give_up(self) -> None:
        """Have the engine let go of what has not ended."""
        self._generation.give_up()

    def finish_reason(self, index: int) -> str | None:
        """Why a sample ended; a call that the limit cut is none."""
        reason = self.requests[index].finish_reason
        return "tool_calls" if reason == "stop" and self._readers[index].num_calls else reason

    def usage(self) -> dict[str, Any]:
        """Tokens read and written so far."""
        found = usage(self.requests, len(self.requests))
        found["completion_tokens_details"]["reasoning_tokens"] = sum(
            [reader.num_reasoning_tokens for reader in self._readers]
        )
        return found

    def _parts(self, index: int, tokens: list[Token], is_last: bool) -> list[Part]:
        reader = self._readers[index]
        parts = reader.read(tokens)
        self._num_read[index] += sum([len(token.text) for token in tokens])
        return parts + reader.finish(self.requests[index].text[self._num_read[index] :]) if is_last else parts


async def begin(service: Service, body: ChatBody, changes: Mapping[str, Any], tenant: str) -> Conversation:
    """A conversation ready to be decoded; `changes` are options in place of the body's.

    Raises:
        ApiError: something in the body is not allowed.
        PacelineError: what cannot be decoded.
    """
    tools = tool_use(body, service.chat_format)
    forced = {} if tools.forced is None else {"response_format": tools.response_format, "regex": None, "choice": None}
    headers: dict[str, str] = {}

    def prompts() -> list[list[int]]:
        prompt = prompt_of(service, body, tools)
        headers.update(prompt.headers)
        return [prompt.ids]

    generation = await service.generation(prompts, body, {**changes, **forced}, tenant)
    try:
        readers = await service.in_thread(lambda: [_reader(service.chat_format, tools, r) for r in generation.requests])
    except BaseException:
        generation.give_up()
        raise
    return Conversation(generation, readers, headers)


def prompt_of(service: Service, body: ChatBody, tools: ToolUse) -> Rendered:
    """The prompt of a conversation, and what was done to get it."""
    runtime = service.runtime
    return rendered(runtime.loaded.tokenizer, service.chat_format, body, tools.described, runtime.seen_chat)


def _reader(form: ChatFormat, tools: ToolUse, request: Request) -> Reader:
    if tools.forced is not None:
        return ForcedCallReader()
    if form.response_template is None or form.marked is None:
        return PlainReader()
    prompt = request.tokens[: request.num_prompt_tokens]
    return TemplateReader(form.response_template, form.marked, prompt, request.params, tools)
