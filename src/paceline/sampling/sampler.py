"""The sampler: a row of logits becomes a token. The only place where sampling parameters act.

The token at position `t` is `argmax_v(score_t(v) + G(seed, sample, t, v))`, where `score` is the processed
log-probability and `G` is Gumbel noise keyed by place: the Gumbel-max trick (Gumbel 1954), used as a
coupling by Daliri, Musco and Suresh (arXiv 2408.07978). Plain decoding and verification call the same
`sample`, one place at a time and in order, so each parameter sees the exact history at each draft position.

Knows nothing of drafts, models or requests. V is the vocabulary; sums and comparisons are float64 in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.errors import RequestError
from paceline.params import SamplingParams
from paceline.sampling.grammar import Grammar
from paceline.sampling.logprobs import thought_of
from paceline.sampling.noise import PART, Floats, Ids, Noise, Scores, largest, parts


@dataclass(frozen=True, slots=True)
class SampledToken:
    """The target's token at one place, and what the model thought there.

    `logprob`, `entropy` (nats), `top` and `logit` are the model's own, before any parameter; `margin` is the sampler's.
    """

    token: int
    logprob: float
    entropy: float
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), likeliest first; empty unless asked for
    margin: float = math.inf  # best less second best of score plus noise; inf where only one token is allowed
    logit: float = 0.0  # the token's own; its size says how finely the model's dtype resolves the margin


@dataclass(frozen=True)
class SamplerContext:
    """What the sampler needs beside the parameters: token ids that the model and its tokenizer give meaning to."""

    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()
    bad_word_ids: tuple[tuple[int, ...], ...] = ()


class Sampler:
    """The law of one sample of one request, and the history that its parameters look at.

    `sample` and `advance` alternate along the target's own path; nothing is ever taken back.
    """

    def __init__(
        self,
        params: SamplingParams,
        context: SamplerContext,
        prompt: Sequence[int],
        seed: int,
        sample: int = 0,
        grammar: Grammar | None = None,
    ) -> None:
        self.params = params
        self.grammar = grammar  # None also behind its end
        self.end: int | None = None  # how many tokens the history had when its grammar had nothing more to say
        self.noise = Noise(seed, sample, context.vocab_size)
        self._context = context
        self._tokens = list(prompt)
        self._num_prompt = len(prompt)
        self._counts = np.zeros(context.vocab_size, np.float64)  # generated tokens, by id
        self._seen = np.zeros(context.vocab_size, np.bool_)  # prompt and generated tokens
        self._seen[self._tokens] = True
        self._bias = _bias_of(params)
        self._is_left_out = _left_out_of(params, context.vocab_size)
        self._ends = np.array(sorted({*params.stop_token_ids, *context.eos_token_ids}), np.int64)

    def sample(self, logits: NDArray[np.float32]) -> SampledToken:
        """The target's token after the history so far, from the model's logits (V,).

        Raises:
            RequestError: the parameters forbid every token here.
        """
        scores = self.process(logits)
        ids, sums = self._best(scores, 2)
        if sums[0] == -np.inf:
            raise self._dead_end()
        if self.grammar is not None and not self.grammar.fits(int(ids[0])):
            ids, sums = self._best_that_fits(scores, self.grammar)
        margin = sums[0] - sums[1] if sums.size > 1 else np.inf
        return _describe(int(ids[0]), logits, self.params.logprobs, float(margin))

    def advance(self, token: int) -> None:
        """Append the chosen token to the history."""
        self.noise.forget(len(self._tokens))
        self._tokens.append(token)
        self._counts[token] += 1
        self._seen[token] = True
        if self.grammar is not None:
            self._follow(self.grammar, token)

    def process(self, logits: Scores) -> Scores:
        """Scores (V,) whose softmax is the distribution at this place; -inf where a token is forbidden.

        Float64 of their own, or `logits` themselves where no parameter acts.
        """
        scores = self._edited(logits) if self._is_edited else logits
        if self.params.is_greedy:
            return scores
        if self.params.temperature != 1.0:
            scores = np.divide(scores, self.params.temperature, dtype=np.float64)
        elif self._is_truncated:
            scores = scores.astype(np.float64, copy=False)
        return truncate(scores, self.params.top_k, self.params.top_p, self.params.min_p)

    @property
    def _is_truncated(self) -> bool:
        return self.params.top_k > 0 or self.params.top_p < 1.0 or self.params.min_p > 0.0

    @property
    def _is_edited(self) -> bool:
        params = self.params
        return bool(
            self._context.bad_word_ids
            or params.min_tokens
            or params.allowed_token_ids
            or params.logit_bias
            or params.repetition_penalty != 1.0
            or params.frequency_penalty
            or params.presence_penalty
            or self.grammar is not None
        )

    def _best(self, scores: Scores, count: int) -> tuple[Ids, Floats]:
        """The tokens that the draw puts first, and what it ranks them by."""
        if not self.params.is_greedy:
            return self.noise.best(scores, len(self._tokens), count)
        ids = largest(scores, count)
        return ids, scores[ids].astype(np.float64, copy=False)

    def _best_that_fits(self, scores: Scores, grammar: Grammar) -> tuple[Ids, Floats]:
        """`_best` from the first token on behind which the text can still be completed, or else a way out alone."""
        ids, sums = self._best(scores, grammar.num_tries)
        for place, token in enumerate(ids[sums > -np.inf].tolist()):
            if grammar.fits(token):
                return ids[place:], sums[place:]
        token = grammar.way_out()
        if token is None or self._is_forbidden(token):
            raise self._dead_end()
        return np.array([token]), np.zeros(1)

    def _is_forbidden(self, token: int) -> bool:
        scores = np.zeros(self._context.vocab_size)
        self._forbid_named(scores)
        return bool(scores[token] + (self.params.logit_bias or {}).get(token, 0.0) == -np.inf)

    def _dead_end(self) -> RequestError:
        return RequestError(
            f"every token is forbidden at position {len(self._tokens)}: allowed_token_ids, bad_words, logit_bias, "
            "min_tokens, max_tokens and the grammar leave nothing; allowed: at least one token"
        )

    def _follow(self, grammar: Grammar, token: int) -> None:
        grammar.advance(token)
        if grammar.is_finished and len(self._tokens) - self._num_prompt >= self.params.min_tokens:
            # A walk may go on over drafts behind the end, which are cut off: they must not fail for want of a grammar.
            self.end, self.grammar = len(self._tokens), None

    def _edited(self, logits: Scores) -> Floats:
        scores = logits.astype(np.float64)
        self._forbid(scores)
        tokens, values = self._bias
        scores[tokens] += values
        self._penalise(scores)
        return scores

    def _forbid(self, scores: Floats) -> None:
        if self.grammar is not None:
            np.copyto(scores, -np.inf, where=~self.grammar.mask())
        self._forbid_named(scores)

    def _forbid_named(self, scores: Floats) -> None:
        """Forbid what the caller's lists of tokens and words, and `min_tokens`, do not allow here."""
        if self._is_left_out is not None:
            scores[self._is_left_out] = -np.inf
        for word in self._context.bad_word_ids:
            head = list(word[:-1])
            generated = len(self._tokens) - self._num_prompt
            if len(head) <= generated and self._tokens[len(self._tokens) - len(head) :] == head:
                scores[word[-1]] = -np.inf
        if len(self._tokens) - self._num_prompt < self.params.min_tokens:
            scores[self._ends] = -np.inf

    def _penalise(self, scores: Floats) -> None:
        tokens = np.flatnonzero(self._seen)
        repetition, counts, seen = self.params.repetition_penalty, self._counts[tokens], scores[tokens]
        if repetition != 1.0:
            seen = np.where(seen > 0, seen / repetition, seen * repetition)
        if self.params.frequency_penalty:
            seen -= self.params.frequency_penalty * counts
        if self.params.presence_penalty:
            seen -= self.params.presence_penalty * (counts > 0)
        scores[tokens] = seen


def truncate(scores: Scores, top_k: int, top_p: float, min_p: float) -> Scores:
    """Scores (V,) with -inf where min-p, then top-k, then top-p drop a token; at least one survives.

    Top-k keeps every token that ties with the k-th. Top-p breaks ties by token id, lower first. Float32 scores, those
    of the model itself, are for when nothing is dropped: bounds and sums want float64.
    """
    floor: float = -np.inf
    if min_p > 0.0:
        floor = scores.max() + np.log(min_p)
    if 0 < top_k < scores.size:
        floor = np.fmax(floor, np.partition(scores, scores.size - top_k)[scores.size - top_k])
    if top_p < 1.0:
        return _keep_top_p(scores, top_p, floor)
    return scores if floor == -np.inf else np.where(scores < floor, -np.inf, scores)


def _keep_top_p(scores: Scores, top_p: float, floor: float) -> Scores:
    allowed = scores[~(scores < floor) if floor > -np.inf else scores > -np.inf]
    if not allowed.size:
        return scores
    values, before = _nucleus(allowed, top_p)
    # A token stays if what stands before it has not reached top_p yet.
    count = np.count_nonzero(before < top_p)
    kept, dropped = values[:count], values[count:]
    result = np.where(scores >= kept[-1], scores, -np.inf)
    if dropped.size and dropped[0] == kept[-1]:
        ties = np.flatnonzero(scores == kept[-1])
        result[ties[np.count_nonzero(kept == kept[-1]) :]] = -np.inf
    return result


def _nucleus(allowed: Scores, top_p: float) -> tuple[Scores, Floats]:
    """Scores (n,), largest first, that hold the nucleus, and the probability that stands before each.

    Tokens below log((1 - top_p) total / n) have less than 1 - top_p of the total weight together: the nucleus is
    above. Sums in another order err by less than 1e-9; where one is nearer to top_p, all are sorted and summed.
    """
    if allowed.size > PART:
        peak = float(allowed.max())
        total = sum(float(np.exp(allowed[part] - peak).sum()) for part in parts(allowed.size))
        values = -np.sort(-allowed[allowed >= peak + np.log1p(-top_p) + np.log(total / allowed.size)])
        through = np.cumsum(np.exp(values - peak)) / total
        if through[-1] > top_p and np.abs(through - top_p).min() > 1e-9:
            return values, _before(through)
    values = -np.sort(-allowed)
    return values, _before(np.cumsum(softmax(values)))


def _before(through: Floats) -> Floats:
    return np.concatenate(([0.0], through[:-1]))


def softmax(scores: Scores) -> Floats:
    """Probabilities of scores, largest score first brought to zero."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()  # type: ignore[no-any-return]


def _describe(token: int, logits: Scores, num_top: int | None, margin: float) -> SampledToken:
    thought = thought_of(logits)
    logit = float(logits[token])
    return SampledToken(token, thought.logprob(token), thought.entropy, thought.top(num_top or 0), margin, logit)


def _bias_of(params: SamplingParams) -> tuple[Ids, Floats]:
    bias = params.logit_bias or {}
    return np.array([*bias], np.int64), np.array([*bias.values()], np.float64)


def _left_out_of(params: SamplingParams, vocab_size: int) -> NDArray[np.bool_] | None:
    """Which tokens (V,) are not among those that a caller allows; None if all are."""
    if params.allowed_token_ids is None:
        return None
    is_left_out = np.ones(vocab_size, np.bool_)
    is_left_out[list(params.allowed_token_ids)] = False
    return is_left_out
