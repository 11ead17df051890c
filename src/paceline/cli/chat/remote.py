"""Answers of a server with OpenAI's API."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from paceline.cli.chat.answer import REASONING, ContextFullError, Figures, Piece, Settings
from paceline.cli.chat.conversation import Conversation
from paceline.client import Client
from paceline.errors import ConfigError, ServerError

ENDPOINTS = ("auto", "chat", "completions")
_OURS = ("model", "messages", "prompt", "stream", "stream_options", "n")  # fields that are not the user's to set
_UNCOUNTED = "the server did not count its tokens; events were counted"


class RemoteSpeaker:
    """A model of a server; without a name, the first that the server lists.

    Raises:
        ServerError: the server does not say which models it has.
    """

    def __init__(self, client: Client, model: str | None, endpoint: str = "auto") -> None:
        if endpoint not in ENDPOINTS:
            raise ConfigError(f"--endpoint is {endpoint!r}; allowed: {', '.join(ENDPOINTS)}")
        self._client, self._endpoint = client, endpoint
        self._model = model or first_model(client)
        self.name = f"{self._model} at {client.url}"
        self.is_chat = endpoint != "completions"

    def check(self, params: dict[str, Any]) -> None:
        """See `Speaker`. Which fields there are, the server knows."""
        if taken := [name for name in _OURS if name in params]:
            raise ConfigError(f"{taken[0]} is set by the chat itself; allowed: other fields of the server's API")

    def answer(self, conversation: Conversation, settings: Settings) -> RemoteAnswer:
        """See `Speaker`. The first event has come, so that a refusal is an error here."""
        try:
            return self._ask(conversation, settings)
        except ServerError as error:
            if not (self._endpoint == "auto" and self.is_chat and _lacks_template(error)):
                raise
        self.is_chat = False
        return self._ask(conversation, settings)

    def _ask(self, conversation: Conversation, settings: Settings) -> RemoteAnswer:
        body = {**settings.params, "model": self._model, "stream": True, "stream_options": {"include_usage": True}}
        if settings.drafters is not None:
            body["speculation"] = {"drafters": settings.drafters}
        if self.is_chat:
            path = "/v1/chat/completions"
            body["messages"] = conversation.messages()
        else:
            path = "/v1/completions"
            body["prompt"] = conversation.text()
        answer = RemoteAnswer(self._client.stream(path, body))
        try:
            answer.begin()
        except ServerError as error:
            if is_context_full(error):
                raise ContextFullError(f"the context is full: {error}") from error
            raise
        return answer


class RemoteAnswer:
    """A stream of events."""

    def __init__(self, events: Iterator[dict[str, Any]]) -> None:
        self._events = events
        self._started = self._last = time.perf_counter()
        self._first: float | None = None
        self._num_pieces = 0
        self._finish_reason = "abort"
        self._usage: dict[str, Any] = {}
        self._extras: dict[str, Any] = {}
        self._begun: dict[str, Any] | None = None

    def begin(self) -> None:
        """Wait for the first event.

        Raises:
            ServerError: there is none.
        """
        self._begun = next(self._events, None)

    def __iter__(self) -> Iterator[Piece]:
        if self._begun is not None:
            yield from self._pieces(self._begun)
        for event in self._events:
            yield from self._pieces(event)

    def close(self) -> None:
        """See `Answer`."""
        with suppress(ServerError, ValueError):  # what closing meets is no news; it may be running in its own frame
            self._events.close()  # type: ignore[attr-defined]  # a generator

    @property
    def figures(self) -> Figures:
        """See `Answer`. Without the server's own count each event is taken for a token."""
        num_tokens = _count(self._usage, "completion_tokens")
        seconds = self._last - self._started
        decoding = seconds - (self._first or 0.0)
        drafting = self._extras.get("speculative_decoding")
        counts = drafting if isinstance(drafting, dict) else {}
        details = self._usage.get("prompt_tokens_details")
        counted = self._num_pieces if num_tokens is None else num_tokens
        return Figures(
            counted,
            seconds,
            self._finish_reason,
            (counted - 1) / decoding if decoding > 0 and counted > 1 else 0.0,
            self._first,
            _count(self._usage, "prompt_tokens"),
            _count(details, "cached_tokens"),
            _number(counts.get("mean_acceptance_length")),
            _count(counts, "num_draft_tokens") or 0,
            _count(counts, "num_accepted_draft_tokens") or _count(counts, "num_accepted_tokens") or 0,
            _drafters(counts.get("drafters")),
            (_UNCOUNTED,) if num_tokens is None and self._finish_reason != "abort" else (),
        )

    def _pieces(self, event: dict[str, Any]) -> Iterator[Piece]:
        self._last = time.perf_counter()
        self._usage = _mapping(event.get("usage")) or self._usage
        self._extras |= _mapping(event.get("metrics"))
        choices = event.get("choices")
        for choice in choices[:1] if isinstance(choices, list) else []:
            for piece in _texts(_mapping(choice)):
                if self._first is None:
                    self._first = self._last - self._started
                self._num_pieces += 1
                yield piece
            self._finish_reason = str(_mapping(choice).get("finish_reason") or self._finish_reason)


def first_model(client: Client) -> str:
    """The first model that a server lists."""
    models = client.models()
    if not models:
        raise ServerError(f"{client.url} lists no model; --model names one")
    return models[0]


def is_context_full(error: ServerError) -> bool:
    """Whether a server says that the prompt is too long: by OpenAI's code, or in the words that clients look for."""
    words = str(error).lower()
    return error.code == "context_length_exceeded" or "maximum context length" in words or "context size" in words


def _lacks_template(error: ServerError) -> bool:
    words = str(error).lower().replace("_", " ")
    return error.status in (400, 404, 405, 422, 501) and "chat template" in words


def _texts(choice: dict[str, Any]) -> Iterator[Piece]:
    """The pieces of an event's choice: of a chat, of a completion, or of one that did not stream."""
    said = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
    thought = said.get("reasoning") or said.get("reasoning_content")
    if isinstance(thought, str):
        yield Piece(thought, REASONING)
    text = said.get("content") or choice.get("text")
    if isinstance(text, str) and text:
        yield Piece(text, "target")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(where: Any, name: str) -> int | None:
    value = _mapping(where).get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _drafters(found: Any) -> dict[str, tuple[int, int]]:
    """Accepted and proposed tokens of each drafter, as a Paceline server says them."""
    by_name = {name: _mapping(counts) for name, counts in _mapping(found).items()}
    pairs = {
        name: (_count(c, "num_accepted_draft_tokens"), _count(c, "num_draft_tokens")) for name, c in by_name.items()
    }
    return {name: (accepted or 0, drafted) for name, (accepted, drafted) in pairs.items() if drafted}
