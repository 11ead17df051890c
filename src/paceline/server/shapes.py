"""Parts of responses: usage, log probabilities, and the figures of a request."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from paceline.engine.request import Request, Token

_PREDICTION = "prediction"  # the drafter that proposes what the request predicts
_LOWEST = -9999.0  # in place of minus infinity, which JSON does not have; vLLM's


def new_id(kind: str) -> str:
    """A fresh id of a response."""
    return f"{kind}-{secrets.token_hex(16)}"


def finite(logprob: float) -> float:
    """A log probability as JSON can say it."""
    return max(logprob, _LOWEST) if not math.isnan(logprob) else _LOWEST


def usage(requests: Sequence[Request], num_samples: int) -> dict[str, Any]:
    """Tokens read and written. Rejected predictions are shown, and not counted: nobody was given them."""
    prompts = requests[::num_samples]
    prompt = sum([request.num_prompt_tokens for request in prompts])
    output = sum([request.num_output_tokens for request in requests])
    found = [request.stats.drafters.get(_PREDICTION) for request in requests]
    predicted = [stats for stats in found if stats is not None]
    accepted = sum([stats.num_accepted_draft_tokens for stats in predicted])
    drafted = sum([stats.num_draft_tokens for stats in predicted])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": sum([request.stats.num_cached_tokens for request in prompts])},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": drafted - accepted,
        },
    }


def chat_logprobs(tokens: Sequence[Token], text_of: Callable[[int], str]) -> dict[str, Any]:
    """`choices[i].logprobs` of a chat: one entry a token."""
    return {"content": [{**_entry(t.id, t.logprob, text_of), "top_logprobs": _tops(t, text_of)} for t in tokens]}


def _tops(token: Token, text_of: Callable[[int], str]) -> list[dict[str, Any]]:
    return [_entry(token_id, logprob, text_of) for token_id, logprob in token.top]


def _entry(token_id: int, logprob: float, text_of: Callable[[int], str]) -> dict[str, Any]:
    text = text_of(token_id)
    return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode())}


class CompletionLogprobs:
    """`choices[i].logprobs` of a completion, whose offsets go on from one step to the next."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of, self._offset = text_of, 0

    def of(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Those of the next tokens."""
        found: dict[str, Any] = {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
        for token in tokens:
            text = self._text_of(token.id)
            tops = {self._text_of(token_id): finite(logprob) for token_id, logprob in reversed(token.top)}
            found["text_offset"].append(self._offset)
            found["token_logprobs"].append(finite(token.logprob))
            found["tokens"].append(text)
            found["top_logprobs"].append({**tops, text: finite(token.logprob)})
            self._offset += len(token.text)
        return found
