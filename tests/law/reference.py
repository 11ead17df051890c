"""The law written a second time, with transformers' own logits processors in vLLM's order."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import stats
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from law.support import WORDS, Kind
from paceline.params import SamplingParams

SPELLED = {token: word for word, token in WORDS.items() if word != "<e>"}


def reference_scores(kind: Kind, prompt: Sequence[int], generated: Sequence[int], row: np.ndarray) -> np.ndarray:
    """The scores (V,) after `prompt` and `generated`, from the target's logits."""
    params = SamplingParams(**kind.params)
    whole = torch.tensor([[*prompt, *generated]])
    # vLLM looks for bad words in the output alone, transformers in the prompt too: show it the output alone.
    output = torch.tensor([list(generated)], dtype=torch.int64)
    scores = torch.tensor(row, dtype=torch.float64)[None]
    scores[0, ~allowed_by_grammar(kind, generated, scores.shape[-1])] = -torch.inf
    if kind.bad_words:
        scores = NoBadWordsLogitsProcessor([list(w) for w in kind.bad_words])(output, scores)
    if params.allowed_token_ids is not None:
        allowed = torch.isin(torch.arange(scores.shape[-1]), torch.tensor(params.allowed_token_ids))
        scores = scores.masked_fill(~allowed, -torch.inf)
    ends = sorted(kind.eos | set(params.stop_token_ids))
    if params.min_tokens and ends:
        scores = MinNewTokensLengthLogitsProcessor(len(prompt), params.min_tokens, ends)(whole, scores)
    if params.logit_bias:
        bias = [[[token], float(value)] for token, value in params.logit_bias.items()]
        scores = SequenceBiasLogitsProcessor(bias)(whole, scores)
    if params.repetition_penalty != 1.0:
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(whole, scores)
    scores = scores - _openai_penalties(params, generated, scores.shape[-1])
    return _warped(params, whole, scores)[0].numpy()


def allowed_by_grammar(kind: Kind, generated: Sequence[int], vocab_size: int) -> torch.Tensor:
    """The tokens (V,) that the grammar allows, by trying out every text of a few letters more."""
    allowed = torch.ones(vocab_size, dtype=torch.bool)
    pattern = pattern_of(kind)
    if pattern is None:
        return allowed
    text = "".join(SPELLED.get(token, "?") for token in generated)
    for token in range(vocab_size):
        if token in kind.eos:
            allowed[token] = re.fullmatch(pattern, text) is not None
        else:
            allowed[token] = token in SPELLED and _can_be_completed(pattern, text + SPELLED[token])
    return allowed


def pattern_of(kind: Kind) -> str | None:
    """A regular expression of Python for the texts that a kind's grammar allows; None without a grammar."""
    if "choice" in kind.params:
        return "|".join(map(re.escape, kind.params["choice"]))
    return kind.params.get("regex")


@functools.cache
def _can_be_completed(pattern: str, text: str) -> bool:
    endings = ("".join(letters) for count in range(4) for letters in itertools.product("abc", repeat=count))
    return any(re.fullmatch(pattern, text + ending) for ending in endings)


def _openai_penalties(params: SamplingParams, generated: Sequence[int], vocab_size: int) -> torch.Tensor:
    """frequency * count + presence * (count > 0), over generated tokens; transformers has neither."""
    penalty = torch.zeros(1, vocab_size, dtype=torch.float64)
    for token, count in Counter(generated).items():
        penalty[0, token] = params.frequency_penalty * count + params.presence_penalty
    return penalty


def _warped(params: SamplingParams, whole: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Temperature, then min-p, top-k and top-p: vLLM's order; transformers itself applies min-p last."""
    if params.is_greedy:
        return scores
    scores = TemperatureLogitsWarper(params.temperature)(whole, scores)
    if params.min_p > 0:
        scores = MinPLogitsWarper(params.min_p)(whole, scores)
    if params.top_k > 0:
        scores = TopKLogitsWarper(params.top_k)(whole, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(whole, scores)
    return scores


def tokens_to_complete(kind: Kind, generated: Sequence[int], limit: int) -> float:
    """The fewest tokens that complete a text, by trying out all of up to `limit`; infinite if none do."""
    pattern, text = pattern_of(kind), "".join(SPELLED.get(token, "?") for token in generated)
    if pattern is None or generated[-1:] in [(end,) for end in kind.eos]:
        return 0
    for count in range(limit + 1):
        endings = itertools.product(SPELLED.values(), repeat=count)
        if any(re.fullmatch(pattern, text + "".join(ending)) for ending in endings):
            return count
    return np.inf


def enumerate_outputs(kind: Kind, logits, max_tokens: int) -> dict[tuple[int, ...], float]:
    """Every output of at most `max_tokens` tokens with its exact probability.

    Under a grammar: given at each place that the text can be completed in the tokens that remain.
    """
    ends = set(kind.eos) | set(kind.params.get("stop_token_ids", ()))

    def grow(output: tuple[int, ...], mass: float) -> Iterator[tuple[tuple[int, ...], float]]:
        if len(output) == max_tokens or (output and output[-1] in ends):
            yield output, mass
            return
        scores = reference_scores(kind, kind.prompt, output, logits((*kind.prompt, *output)))
        room = max_tokens - len(output) - 1
        for token in np.flatnonzero(scores > -np.inf):
            if tokens_to_complete(kind, (*output, int(token)), room) > room:
                scores[token] = -np.inf
        if not (scores > -np.inf).any():  # without an end-of-sequence token the text ends where nothing can follow
            yield output, mass
            return
        for token, share in enumerate(np.exp(scores - np.logaddexp.reduce(scores))):
            if share > 0:
                yield from grow((*output, token), mass * float(share))

    return dict(grow((), 1.0))


def chi_square(outputs: list[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> float:
    """The probability of outputs at least as far from `expected` as these; 0 if one of them is impossible.

    Outputs of which fewer than five are expected share a cell.
    """
    counts = Counter(outputs)
    if not counts.keys() <= expected.keys():
        return 0.0
    cells = np.array([(counts[output], len(outputs) * mass) for output, mass in expected.items()])
    is_small = cells[:, 1] < 5
    pooled = [cells[is_small].sum(axis=0)] if is_small.any() else []
    observed, wanted = np.array([*cells[~is_small], *pooled]).T
    return float(stats.chisquare(observed, wanted).pvalue)
