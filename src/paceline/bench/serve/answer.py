"""What came of one request: its chunks as they arrived, and the times that users feel.

TTFT      from sending to the first chunk whose choice carries text. A chunk that only names the role does not count.
ITL       between chunks that carry text. With speculation that is the time of a step, not of a token.
TPOT      (E2EL - TTFT) / (tokens - 1), the tokens as the server's usage counts them.
E2EL      from sending to the last chunk with a choice.
token gap the time between chunks over the tokens that the later one brought: k tokens are k gaps.

The tokens of a chunk come from usage on every chunk where the server sends it, else from the entries of its
log-probabilities, else a chunk counts as one; `token_source` says which. Tokens without text of their own (half of a
character, text held back) count with the next text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

OK, CUT = "ok", "cut"  # whole; ended by its deadline
REFUSED, REJECTED, FAILED = "refused", "rejected", "failed"  # for its deadline; by another status; anything else
OUTCOMES = (OK, CUT, REFUSED, REJECTED, FAILED)
USAGE, LOGPROBS, CHUNKS = "usage", "logprobs", "chunks"
_TEXTS = ("text", "content", "reasoning", "reasoning_content", "tool_calls")


@dataclass
class Answer:
    """One request and what the server sent; times are seconds of `time.perf_counter`."""

    label: str  # its task
    due: float  # when it was to be sent
    sent: float
    outcome: str = FAILED
    error: str | None = None
    status: int | None = None
    chunks: list[tuple[float, int]] = field(default_factory=list)  # those with text: time, new tokens
    last: float | None = None  # time of the last chunk with a choice
    ended: float = 0.0  # when nothing more was to come
    texts: list[str] = field(default_factory=list)
    prompt_tokens: int | None = None
    usage_tokens: int | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    token_source: str = CHUNKS
    _counted: int = 0  # tokens that stand in `chunks`
    _pending: int = 0  # tokens of log-probabilities whose text has not come

    def take(self, event: Mapping[str, Any], at: float) -> None:
        """Count one event of the stream."""
        if error := event.get("error"):
            self.error = str(error.get("message") if isinstance(error, Mapping) else error)
            return
        self._read_usage(event.get("usage") or {})
        for choice in (event.get("choices") or [])[:1]:
            self._read_choice(choice, at, has_usage=bool(event.get("usage")))

    def _read_usage(self, usage: Mapping[str, Any]) -> None:
        self.usage_tokens = usage.get("completion_tokens", self.usage_tokens)
        self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)

    def _read_choice(self, choice: Mapping[str, Any], at: float, has_usage: bool) -> None:
        self.last = at
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.stop_reason = choice.get("stop_reason") or self.stop_reason
        self._pending += num_entries(choice.get("logprobs"))
        if text := text_of(choice):
            count = self._new_tokens(has_usage)
            self.chunks.append((at, count))
            self.texts.append(text)
            self._counted += count

    def _new_tokens(self, has_usage: bool) -> int:
        if has_usage and self.usage_tokens is not None:
            self.token_source = USAGE
            return max(self.usage_tokens - self._counted, 0)
        if self._pending:
            self.token_source, count, self._pending = LOGPROBS, self._pending, 0
            return count
        return 1 if self.token_source == CHUNKS else 0

    @property
    def is_answered(self) -> bool:
        """Whether text came, to its end or to its deadline."""
        return self.outcome in (OK, CUT)

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer: the server's count, else those of the chunks."""
        return self._counted if self.usage_tokens is None else self.usage_tokens

    def tokens_until(self, at: float) -> float:
        """Tokens that had come by then; those that no chunk told of are spread over the chunks."""
        seen = sum(count for seconds, count in self.chunks if seconds <= at)
        return seen * self.num_tokens / max(self._counted, 1)

    @property
    def ttft(self) -> float | None:
        """Seconds to the first text."""
        return self.chunks[0][0] - self.sent if self.chunks else None

    @property
    def e2el(self) -> float | None:
        """Seconds to the last chunk with a choice."""
        return None if self.last is None else self.last - self.sent

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first; None where there is only one."""
        if self.last is None or not self.chunks or self.num_tokens < 2:
            return None
        return (self.last - self.chunks[0][0]) / (self.num_tokens - 1)

    @property
    def itls(self) -> list[float]:
        """Seconds between chunks with text."""
        return [after - before for (before, _), (after, _) in pairwise(self.chunks)]

    @property
    def token_gaps(self) -> list[float]:
        """Seconds between tokens: a chunk of k tokens is k equal gaps, one of none adds its wait to the next."""
        bringing = [self.chunks[0], *(chunk for chunk in self.chunks[1:] if chunk[1])] if self.chunks else []
        return [(at - before) / count for (before, _), (at, count) in pairwise(bringing) for _ in range(count)]


def text_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice, of completions or of a chat; a tool call's arguments are text too."""
    part = choice.get("delta") or choice
    return "".join(value if isinstance(value, str) else str(value) for name in _TEXTS if (value := part.get(name)))


def num_entries(logprobs: Any) -> int:
    """Tokens with log-probabilities in a chunk, in either of the two shapes."""
    found = logprobs or {}
    return len(found.get("content") or found.get("tokens") or ())
