"""One request on its way: its tokens, its law, its text. Only `Request.commit` appends tokens.

It alone knows about stop strings, end-of-sequence tokens and limits. Knows nothing of models or caches.
"""

from __future__ import annotations

import itertools
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paceline.errors import PacelineError
from paceline.law import TargetLaw
from paceline.stats import RequestStats
from paceline.text import TextStream
from paceline.trace import StepRecord
from paceline.types import Choice, Token

if TYPE_CHECKING:
    from paceline.types import Drafter

_ids = itertools.count()


@dataclass(frozen=True, slots=True)
class Hints:
    """What a caller tells drafters. It changes the speed and nothing else."""

    prediction: tuple[int, ...] = ()  # tokens of what the output will probably be
    tenant: str = ""  # nothing learnt from one tenant's text drafts for another


NO_HINTS = Hints()


def fresh_tenant() -> str:
    """A tenant that nobody else is, and that has asked for nothing yet: what it reads is in no cache."""
    return secrets.token_hex(8)


class Request:
    """One sample of one prompt. The engine steps it; the facade reads `outbox` until `finish_reason` is set."""

    def __init__(
        self,
        prompt: Sequence[int],
        law: TargetLaw,
        text: TextStream,
        end_token_ids: frozenset[int],
        drafters: Sequence[Drafter] = (),
        seed: int = 0,
        hints: Hints = NO_HINTS,
    ) -> None:
        self.id = next(_ids)
        self.tokens = list(prompt)
        self.num_prompt_tokens = len(prompt)
        self.law = law
        self.params = law.params
        assert self.params.max_tokens is not None, "the facade resolves it"
        self.max_tokens = self.params.max_tokens
        self.drafters = tuple(drafters)  # those that may be asked
        self.listeners = self.drafters  # those that are told of its end
        self.seed = seed
        self.hints = hints
        self.outbox: deque[Token] = deque()  # filled by commit, emptied by whoever streams
        self.finish_reason: str | None = None  # "stop", "length", "abort", or "error"
        self.error: PacelineError | None = None  # why, if "error"; raised to whoever reads
        self.stats = RequestStats(num_prompt_tokens=len(prompt))
        self.trace: list[StepRecord] = []  # one per step, by the engine
        self._text = text
        self._end_token_ids = end_token_ids

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def num_remaining(self) -> int:
        """Tokens that may still be generated."""
        return self.max_tokens - self.num_output_tokens

    @property
    def text(self) -> str:
        """The text so far, without what is held back."""
        return self._text.text

    def commit(self, choices: Sequence[Choice], sources: Sequence[str]) -> tuple[Token, ...]:
        """The tokens emitted: all choices, or those up to and including the first that ends the request."""
        emitted: list[Token] = []
        reason = None
        for choice, source in zip(choices, sources, strict=True):
            token, reason = self._append(choice, source)
            emitted.append(token)
            if reason is not None:
                break
        self.outbox.extend(emitted)
        self.finish_reason = reason  # last: to a reader in another thread it says that the outbox is complete
        return tuple(emitted)

    def fail(self, error: PacelineError) -> None:
        """End the request without a further token."""
        self.error, self.finish_reason = error, "error"

    def _append(self, choice: Choice, source: str) -> tuple[Token, str | None]:
        """One more token, and why the request ends with it if it does."""
        self.tokens.append(choice.token)
        late_enough = self.num_output_tokens > self.params.min_tokens
        text, stopped = self._text.push(choice.token, check_stop=late_enough)
        reason = None
        if stopped or choice.token in self._end_token_ids or self._ends_its_grammar():
            reason = "stop"
        elif self.num_remaining == 0:
            reason = "length"
        if reason is not None and not stopped:
            text += self._text.finish()
        about = (choice.logprob, choice.entropy, choice.top, choice.margin, choice.logit)
        return Token(choice.token, text, source, *about), reason

    def _ends_its_grammar(self) -> bool:
        return self.law.end is not None and len(self.tokens) >= self.law.end
