"""What answers in `paceline chat`, whoever that is: pieces of text as they come, and figures at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from paceline.cli.chat.conversation import Conversation
from paceline.errors import RequestError

REASONING = "reasoning"  # the source of text that is thought aloud and no part of the answer


class ContextFullError(RequestError):
    """The conversation has become too long for the model."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}. /reset empties the conversation; /save FILE keeps it first")


class Piece(NamedTuple):
    """Some text of an answer, and who proposed it: a drafter, "target", or `REASONING`."""

    text: str
    source: str


@dataclass(frozen=True)
class Figures:
    """What an answer took; None where nobody says."""

    num_tokens: int
    seconds: float
    finish_reason: str
    tokens_per_second: float
    first_seconds: float | None = None  # until the first text
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    tokens_per_step: float | None = None
    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    drafters: dict[str, tuple[int, int]] = field(default_factory=dict)  # accepted and proposed tokens of each
    notes: tuple[str, ...] = ()


@dataclass
class Settings:
    """How the next answers are made."""

    params: dict[str, Any] = field(default_factory=dict)
    drafters: str | list[str] | None = None  # None: as they were given at the start, or as the server does


class Answer(Protocol):
    """An answer on its way."""

    def __iter__(self) -> Iterator[Piece]: ...

    def close(self) -> None:
        """End it now, if it has not ended."""

    @property
    def figures(self) -> Figures:
        """What it has taken so far; asked for after its end."""


class Speaker(Protocol):
    """A model that goes on with conversations."""

    name: str
    is_chat: bool  # False: there is no chat template, and text is continued

    def check(self, params: dict[str, Any]) -> None:
        """Refuse parameters that no answer could have.

        Raises:
            ConfigError: what is wrong with them.
        """

    def answer(self, conversation: Conversation, settings: Settings) -> Answer:
        """The next answer.

        Raises:
            PacelineError: there is none; the conversation is left as it is.
        """
