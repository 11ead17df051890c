"""Answers of a model in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from paceline.cli.chat.answer import ContextFullError, Figures, Piece, Settings
from paceline.cli.chat.conversation import Conversation
from paceline.cli.loading import fitting, prefill_progress
from paceline.errors import ConfigError
from paceline.params import SamplingParams

if TYPE_CHECKING:
    from paceline.llm import LLM
    from paceline.streams import Stream

_MAX_TOKENS = 512  # of an answer, where nobody says


class LocalSpeaker:
    """A loaded `LLM`."""

    def __init__(self, llm: LLM, name: str) -> None:
        self._llm, self.name = llm, name
        tokenizer: Any = llm.tokenizer
        self.is_chat = bool(tokenizer is not None and getattr(tokenizer.inner, "chat_template", None))

    def check(self, params: dict[str, Any]) -> None:
        """See `Speaker`."""
        if SamplingParams().merged(params).n > 1:
            raise ConfigError(f"n is {params['n']}; allowed in a chat: 1")

    def answer(self, conversation: Conversation, settings: Settings) -> LocalAnswer:
        """See `Speaker`."""
        llm, target = self._llm, self._llm.target
        ids = self._ids(conversation)
        if len(ids) >= target.max_length:
            full = f"the context is full: the conversation has {len(ids):,} tokens of {target.max_length:,}"
            raise ContextFullError(full)
        asked = settings.params.get("max_tokens") or _MAX_TOKENS
        max_tokens = fitting(llm, len(ids), asked)
        params = {**settings.params, "max_tokens": max_tokens}
        stream = llm.stream(ids, drafters=settings.drafters, **params)
        return LocalAnswer(llm, stream, len(ids), is_fitted=max_tokens < asked)

    def _ids(self, conversation: Conversation) -> list[int]:
        if not self.is_chat:
            return self._llm.encode(conversation.text())
        return self._llm._runtime.chat_prompts(conversation.messages(), None, None)  # type: ignore[no-any-return]


class LocalAnswer:
    """A stream of tokens."""

    def __init__(self, llm: LLM, stream: Stream, num_prompt_tokens: int, is_fitted: bool) -> None:
        self._llm, self._stream, self._is_fitted = llm, stream, is_fitted
        self._num_prompt_tokens = num_prompt_tokens
        self._started = time.perf_counter()
        self._first: float | None = None

    def __iter__(self) -> Iterator[Piece]:
        with prefill_progress(self._llm, self._num_prompt_tokens):
            for token in self._stream:
                if self._first is None:
                    self._first = time.perf_counter() - self._started
                yield Piece(token.text, token.source)

    def close(self) -> None:
        """See `Answer`."""
        self._stream.close()

    @property
    def figures(self) -> Figures:
        """See `Answer`."""
        output = self._stream.output
        stats = output.stats
        is_full = self._is_fitted and output.finish_reason == "length"
        return Figures(
            stats.num_emitted_tokens,
            stats.prefill_seconds + stats.decode_seconds,
            output.finish_reason,
            stats.tokens_per_second,
            self._first,
            stats.num_prompt_tokens,
            stats.num_cached_tokens,
            stats.mean_acceptance_length,
            stats.num_draft_tokens,
            stats.num_accepted_draft_tokens,
            {
                name: (drafter.num_accepted_draft_tokens, drafter.num_draft_tokens)
                for name, drafter in stats.drafters.items()
                if drafter.num_draft_tokens
            },
            (f"the context of {self._llm.target.max_length:,} tokens is full now: /reset empties the conversation",)
            if is_full
            else (),
        )
