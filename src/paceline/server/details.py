"""What `return_token_details` adds to each choice: how its tokens came about, and why the pacer drafted or not.

It is an extension of our own, for the playground and whoever wants to see inside. Of one sample's choices, streamed or
whole: `token_details` of the tokens in it, the `steps` that have ended since the last one, `prompt_details` in the
first and `pacing` in the last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from paceline.engine.request import Request, Token
from paceline.engine.trace import StepRecord
from paceline.pacing.wording import sentence
from paceline.server.schemas.sampling import SamplingBody
from paceline.server.service import Service
from paceline.server.shapes import finite


class Details:
    """Those of the samples of one body; nothing, if it does not ask for them."""

    def __init__(self, service: Service, body: SamplingBody, requests: Sequence[Request]) -> None:
        texts = _Texts(service)
        self._samples = [_Sample(request, texts) for request in requests] if body.return_token_details else []

    def of(self, index: int, tokens: Sequence[Token], is_last: bool) -> dict[str, Any]:
        """What to add to a choice with the next tokens of a sample."""
        return self._samples[index].of(tokens, is_last) if self._samples else {}


class _Texts:
    """The texts of tokens, each decoded once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[int, str] = {}

    def of(self, token_id: int) -> str:
        """The text of a token alone."""
        if token_id not in self._known:
            self._known[token_id] = self._service.text_of(token_id)
        return self._known[token_id]

    def of_prompt(self, ids: Sequence[int]) -> str:
        """The text of tokens in a row, special ones too."""
        tokenizer = self._service.runtime.loaded.tokenizer
        return str(tokenizer.inner.decode(list(ids), skip_special_tokens=False)) if tokenizer else ""


class _Sample:
    """One request, whose trace the engine's thread goes on with while it is read here: by index, never twice."""

    def __init__(self, request: Request, texts: _Texts) -> None:
        self._request, self._texts = request, texts
        self._ends: list[int] = []  # tokens emitted up to and including each step that has been told
        self._num_tokens = 0
        self._step = 0  # of the next token
        self._has_begun = False

    def of(self, tokens: Sequence[Token], is_last: bool) -> dict[str, Any]:
        """See `Details`."""
        # A step's record comes behind its tokens: those taken before may lack the last one, and no other.
        steps = self._request.trace[len(self._ends) :]
        for step in steps:
            self._ends.append(step.num_emitted + (self._ends[-1] if self._ends else 0))
        found: dict[str, Any] = {"token_details": [self._token(token) for token in tokens]}
        found["steps"] = [self._shown(step) for step in steps]
        if not self._has_begun:
            self._has_begun = True
            found["prompt_details"] = self._prompt()
        if is_last:
            found["pacing"] = _pacing(self._request)
        return found

    def _token(self, token: Token) -> dict[str, Any]:
        while self._step < len(self._ends) and self._num_tokens >= self._ends[self._step]:
            self._step += 1
        self._num_tokens += 1
        return {
            "id": token.id,
            "text": token.text,
            "source": token.source,
            "logprob": finite(token.logprob),
            "entropy": _number(token.entropy),
            "margin": _number(token.margin),
            "top": [{"id": i, "text": self._texts.of(i), "logprob": finite(logprob)} for i, logprob in token.top],
            "step": self._step,
        }

    def _shown(self, step: StepRecord) -> dict[str, Any]:
        tree = step.tree
        return {
            "tokens": list(tree.tokens),
            "texts": [self._texts.of(token) for token in tree.tokens],
            "parents": list(tree.parents),
            "scores": [_number(score) for score in tree.scores],
            "sources": list(tree.sources),
            "path": list(step.path),
            "num_emitted": step.num_emitted,
            "draft_ms": step.draft_seconds * 1e3,
            "forward_ms": step.forward_seconds * 1e3,
            "other_ms": step.commit_seconds * 1e3,
        }

    def _prompt(self) -> dict[str, Any]:
        request = self._request
        ids, cached = request.tokens[: request.num_prompt_tokens], request.stats.num_cached_tokens
        return {
            "num_tokens": len(ids),
            "num_cached_tokens": cached,
            "cached_text": self._texts.of_prompt(ids[:cached]),
            "text": self._texts.of_prompt(ids[cached:]),
        }


def _pacing(request: Request) -> dict[str, Any]:
    """Why the pacer drafted or not, and what each drafter came to; seconds as they are kept."""
    account = dict(request.stats.pacing)
    return {
        "sentence": sentence(request.stats, bool(request.drafters)),
        "stops": account.pop("stops", {}),
        "accounts": account,
        "drafters": {name: drafter.as_dict() for name, drafter in request.stats.drafters.items()},
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
