"""Parts of responses: usage, log probabilities, and the figures of a request."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from paceline.engine.request import Request, Token
from paceline.engine.stats import Stats

_PREDICTION = "prediction"  # the drafter that proposes what the request predicts
_LOWEST = -9999.0  # in place of minus infinity, which JSON does not have; vLLM's


def new_id(kind: str, separator: str = "-") -> str:
    """A fresh id of a response."""
    return f"{kind}{separator}{secrets.token_hex(16)}"


def finite(logprob: float) -> float:
    """A log probability as JSON can say it."""
    return max(logprob, _LOWEST) if not math.isnan(logprob) else _LOWEST


def stopped_of(request: Request) -> dict[str, Any]:
    """Which tokens of an output a rule of its request ended it for, and why; nothing if none did."""
    stopped = request.stopped
    return {} if stopped is None else {"stopped": asdict(stopped)}


def usage(requests: Sequence[Request], num_samples: int) -> dict[str, Any]:
    """Tokens read and written. Rejected predictions are shown, and not counted: nobody was given them."""
    prompts = requests[::num_samples]
    prompt = sum([request.num_input_tokens for request in prompts])
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


def metrics_of(requests: Sequence[Request]) -> dict[str, Any]:
    """`metrics` of a response, under vLLM's names: times in milliseconds, None where there is none, and drafts.

    Of several samples: from the first one's beginning to the last one's end; tokens and drafts are summed. The time to
    the first token begins with the admission to the engine, as vLLM's does: what is before it is `queue_time_ms`.
    """
    times = [request.times for request in requests]
    arrived = min([one.arrived for one in times if one.arrived is not None], default=None)
    admitted = min([one.admitted for one in times if one.admitted is not None], default=None)
    first = min([one.first_token for one in times if one.first_token is not None], default=None)
    ended = max([one.finished for one in times if one.finished is not None], default=None)
    gaps = [_decoding(request) for request in requests if request.num_output_tokens > 1]
    num_gaps = sum([request.num_output_tokens - 1 for request in requests if request.num_output_tokens > 1])
    inference = _milliseconds(admitted, ended)
    num_tokens = sum([request.num_output_tokens for request in requests])
    return {
        "time_to_first_token_ms": _milliseconds(admitted, first),
        "generation_time_ms": _milliseconds(first, ended),
        "queue_time_ms": _milliseconds(arrived, admitted),
        "mean_itl_ms": sum(gaps) / num_gaps if num_gaps else None,
        "tokens_per_second": 1000 * num_tokens / inference if inference else None,
        "speculative_decoding": _speculation([request.stats for request in requests]),
    }


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else 1000 * max(end - start, 0.0)


def _decoding(request: Request) -> float:
    """Milliseconds from a request's first token to its end."""
    return _milliseconds(request.times.first_token, request.times.finished) or 0.0


def _speculation(stats: Sequence[Stats]) -> dict[str, Any]:
    """Drafts of several requests, pooled; the acceptance length is vLLM's, over steps with drafts."""
    num_drafts = sum([one.num_spec_steps for one in stats])
    drafted = sum([one.num_draft_tokens for one in stats])
    accepted = sum([one.num_accepted_draft_tokens for one in stats])
    drafters: dict[str, dict[str, int]] = {}
    for name, one in [item for each in stats for item in each.drafters.items() if item[1].num_draft_tokens]:
        known = drafters.setdefault(name, {"num_draft_tokens": 0, "num_accepted_tokens": 0})
        known["num_draft_tokens"] += one.num_draft_tokens
        known["num_accepted_tokens"] += one.num_accepted_draft_tokens
    return {
        "num_drafts": num_drafts,
        "num_draft_tokens": drafted,
        "num_accepted_tokens": accepted,
        "acceptance_rate": accepted / drafted if drafted else None,
        "mean_acceptance_length": 1 + accepted / num_drafts if num_drafts else None,
        "drafters": drafters,
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
        self._found = _no_logprobs()

    def add(self, token_id: int, text: str, logprob: float | None, top: Sequence[tuple[int, float]]) -> None:
        """A further token: what it adds to the text, and what the model thought, None if nothing."""
        own = self._text_of(token_id)
        tops = {self._text_of(one): finite(each) for one, each in reversed(top)}
        self._found["text_offset"].append(self._offset)
        self._found["token_logprobs"].append(None if logprob is None else finite(logprob))
        self._found["tokens"].append(own)
        self._found["top_logprobs"].append(None if logprob is None else {**tops, own: finite(logprob)})
        self._offset += len(text)

    def go_on_at(self, offset: int) -> None:
        """Have the next token's text begin there."""
        self._offset = offset

    def of(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Those of the next tokens, and before them of what was added since the last ones."""
        for token in tokens:
            self.add(token.id, token.text, token.logprob, token.top)
        found, self._found = self._found, _no_logprobs()
        return found


def _no_logprobs() -> dict[str, Any]:
    return {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
