"""What the model itself thinks of tokens, before any parameter: log-probability, entropy, rank, the likeliest.

Knows nothing of parameters or requests. V is the vocabulary; logits are the model's float32, sums are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.sampling.noise import Scores, largest, parts

Top = tuple[tuple[int, float], ...]  # (token, logprob), likeliest first


@dataclass(frozen=True, slots=True)
class PromptLogprob:
    """What the model thought of a token of the prompt, after those before it; `logprob` in nats."""

    logprob: float
    rank: int  # how many tokens were at least as likely, itself included: 1 is the likeliest
    top: Top = ()  # as many as were asked for


class Thought(NamedTuple):
    """The distribution that a row of logits stands for."""

    logits: Scores  # (V,)
    peak: float  # the largest of them
    log_total: float  # log of the sum of exp(logits - peak)
    entropy: float  # nats

    def logprob(self, token: int) -> float:
        """The log-probability of a token, in nats; -inf if its logit is."""
        return float(self.logits[token]) - self.peak - self.log_total

    def top(self, count: int) -> Top:
        """The likeliest tokens, a tie by the lower id."""
        return tuple((int(token), self.logprob(token)) for token in largest(self.logits, count)) if count else ()


def thought_of(logits: Scores) -> Thought:
    """What a row of logits (V,) says; tokens of -inf have no part in it."""
    peak = float(logits.max())
    is_masked = logits.min() == -np.inf
    total = mean = 0.0
    for part in parts(logits.size):
        shifted = logits[part].astype(np.float64)
        shifted -= peak
        if is_masked:
            np.maximum(shifted, _NOTHING, out=shifted)
        weights = np.exp(shifted)
        total += float(np.add.reduce(weights))
        mean += float(np.dot(weights, shifted))
    log_total = float(np.log(total))
    return Thought(logits, peak, log_total, log_total - mean / total)  # entropy = log Z - E[logit]


def prompt_logprobs(logits: NDArray[np.float32], tokens: Sequence[int], num_top: int) -> list[PromptLogprob]:
    """What the model thought of tokens of the prompt, from the rows (n, V) before them."""
    return [_prompt_logprob(row, token, num_top) for row, token in zip(logits, tokens, strict=True)]


def _prompt_logprob(row: Scores, token: int, num_top: int) -> PromptLogprob:
    thought = thought_of(row)
    rank = int(np.count_nonzero(row >= row[token]))
    return PromptLogprob(thought.logprob(token), rank, thought.top(num_top))


_NOTHING = -800.0  # its exp is 0 and, unlike -inf, so is its product with 0
