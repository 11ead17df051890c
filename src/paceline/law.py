"""The target law: a row of logits becomes a token. The only place where sampling parameters act.

The token at position `t` is `argmax_v(score_t(v) + G(seed, sample, t, v))`, where `score` is the processed
log-probability and `G` is Gumbel noise keyed by place: the Gumbel-max trick (Gumbel 1954), used as a
coupling by Daliri, Musco and Suresh (arXiv 2408.07978). Plain decoding and verification call the same
`choose`, one place at a time and in order, so each parameter sees the exact history at each draft position.

Knows nothing of drafts, models or requests. V is the vocabulary; everything here is float64 in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.errors import RequestError
from paceline.params import SamplingParams
from paceline.types import Choice

Floats = NDArray[np.float64]


class Noise:
    """Gumbel noise of one sample: `at(position)` is (V,) float64, the same whoever asks and however often.

    Philox 4x64 (Salmon et al. 2011) keyed by (seed, sample), with the position in the counter. The position
    counts from the start of the prompt, so that a request continued from its own output meets the same noise.
    A float32 uniform would have too few values near 1, where the winning tokens come from.
    """

    def __init__(self, seed: int, sample: int, vocab_size: int) -> None:
        self._key = np.array([seed % 2**64, sample], dtype=np.uint64)
        self._vocab_size = vocab_size
        self._kept: dict[int, Floats] = {}

    def at(self, position: int) -> Floats:
        """The noise of the token at `position`; drawn once and kept until `forget` passes it."""
        if position not in self._kept:
            counter = np.array([0, position, 0, 0], dtype=np.uint64)
            bits = np.random.Philox(key=self._key, counter=counter).random_raw(self._vocab_size)
            self._kept[position] = -np.log(-np.log(open_uniforms(bits)))
        return self._kept[position]

    def forget(self, position: int) -> None:
        """Drop what is kept for places up to `position`, which are committed."""
        for old in [kept for kept in self._kept if kept <= position]:
            del self._kept[old]


def open_uniforms(bits: NDArray[np.uint64]) -> Floats:
    """Uniforms in (0, 1) from the upper 52 of 64 random bits; with 53, adding a half would round up to 1."""
    uniforms: Floats = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return uniforms


@dataclass(frozen=True)
class LawContext:
    """What the law needs beside the parameters: token ids that the model and its tokenizer give meaning to."""

    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()
    bad_word_ids: tuple[tuple[int, ...], ...] = ()


class TargetLaw:
    """The law of one sample of one request, and the history that its parameters look at.

    `choose` and `advance` alternate along the target's own path; nothing is ever taken back.
    """

    def __init__(
        self, params: SamplingParams, context: LawContext, prompt: Sequence[int], seed: int, sample: int = 0
    ) -> None:
        self.params = params
        self.noise = Noise(seed, sample, context.vocab_size)
        self._context = context
        self._tokens = list(prompt)
        self._num_prompt = len(prompt)
        self._counts = np.zeros(context.vocab_size, np.float64)  # generated tokens, by id
        self._seen = np.zeros(context.vocab_size, np.bool_)  # prompt and generated tokens
        self._seen[self._tokens] = True
        self._bias = _bias_vector(params, context.vocab_size)
        self._ends = np.array(sorted({*params.stop_token_ids, *context.eos_token_ids}), np.int64)

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """The target's token after the history so far, from the model's logits (V,).

        Raises:
            RequestError: the parameters forbid every token here.
        """
        row = logits.astype(np.float64)
        scores = self.process(row)
        if scores.max() == -np.inf:
            raise RequestError(
                f"every token is forbidden at position {len(self._tokens)}: bad_words, logit_bias and min_tokens "
                "leave nothing; allowed: at least one token"
            )
        if not self.params.is_greedy:
            scores = scores + self.noise.at(len(self._tokens))
        return _describe(int(scores.argmax()), row, self.params.logprobs)

    def advance(self, token: int) -> None:
        """Append the chosen token to the history."""
        self.noise.forget(len(self._tokens))
        self._tokens.append(token)
        self._counts[token] += 1
        self._seen[token] = True

    def process(self, row: Floats) -> Floats:
        """Scores (V,) whose softmax is the law at this place; -inf where a token is forbidden."""
        scores: Floats = row.copy()
        self._forbid(scores)
        if self._bias is not None:
            scores += self._bias
        self._penalise(scores)
        if self.params.is_greedy:
            return scores
        scores /= self.params.temperature
        if scores.max() == -np.inf:
            return scores
        return truncate(scores, self.params.top_k, self.params.top_p, self.params.min_p)

    def _forbid(self, scores: Floats) -> None:
        for word in self._context.bad_word_ids:
            head = list(word[:-1])
            generated = len(self._tokens) - self._num_prompt
            if len(head) <= generated and self._tokens[len(self._tokens) - len(head) :] == head:
                scores[word[-1]] = -np.inf
        if len(self._tokens) - self._num_prompt < self.params.min_tokens:
            scores[self._ends] = -np.inf

    def _penalise(self, scores: Floats) -> None:
        repetition = self.params.repetition_penalty
        if repetition != 1.0:
            seen = scores[self._seen]
            scores[self._seen] = np.where(seen > 0, seen / repetition, seen * repetition)
        if self.params.frequency_penalty:
            scores -= self.params.frequency_penalty * self._counts
        if self.params.presence_penalty:
            scores -= self.params.presence_penalty * (self._counts > 0)


def truncate(scores: Floats, top_k: int, top_p: float, min_p: float) -> Floats:
    """Scores (V,) with -inf where min-p, then top-k, then top-p drop a token; at least one survives.

    Top-k keeps every token that ties with the k-th. Top-p breaks ties by token id, lower first.
    """
    if min_p > 0.0:
        scores = np.where(scores < scores.max() + np.log(min_p), -np.inf, scores)
    if 0 < top_k < scores.size:
        smallest = np.partition(scores, scores.size - top_k)[scores.size - top_k]
        scores = np.where(scores < smallest, -np.inf, scores)
    if top_p < 1.0:
        scores = _keep_top_p(scores, top_p)
    return scores


def _keep_top_p(scores: Floats, top_p: float) -> Floats:
    candidates = np.flatnonzero(scores > -np.inf)
    order = candidates[np.argsort(-scores[candidates], kind="stable")]
    probs = softmax(scores[order])
    # A token stays if what stands before it has not reached top_p yet.
    before = np.concatenate(([0.0], np.cumsum(probs)[:-1]))
    kept = order[before < top_p]
    result = np.full_like(scores, -np.inf)
    result[kept] = scores[kept]
    return result


def softmax(scores: Floats) -> Floats:
    """Probabilities of scores, largest score first brought to zero."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()  # type: ignore[no-any-return]


def _describe(token: int, row: Floats, num_top: int | None) -> Choice:
    shifted = row - row.max()
    weights = np.exp(shifted)
    total = weights.sum()
    log_total = float(np.log(total))
    # Entropy = log Z - E[logit]; a logit of -inf has weight 0 and adds nothing.
    mean = float(np.dot(weights, np.where(weights > 0, shifted, 0.0)) / total)
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        best = np.argsort(-shifted, kind="stable")[:num_top]
        top = tuple((int(t), float(shifted[t]) - log_total) for t in best)
    return Choice(token, float(shifted[token]) - log_total, log_total - mean, top)


def _bias_vector(params: SamplingParams, vocab_size: int) -> Floats | None:
    if not params.logit_bias:
        return None
    bias = np.zeros(vocab_size, np.float64)
    for token, value in params.logit_bias.items():
        bias[token] = value
    return bias
