"""The independent reference: the stock transformers model in float32, and transformers' own logits processors.

The processors run in vLLM's order, which is Paceline's. Presence and frequency penalties, which transformers does not
have, are OpenAI's formula. V is the vocabulary.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

from paceline.certify.betting import Chances
from paceline.certify.plan import Case
from paceline.model.loading import parse_device, read_reference
from paceline.model.quantized import is_quantized
from paceline.params import SamplingParams

Floats = NDArray[np.float64]
COVERED = frozenset(
    {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}
    | {"logit_bias", "min_tokens", "ignore_eos"}
)


def covers(case: Case) -> bool:
    """True if the reference has every parameter of a case."""
    return case.sampling.keys() <= COVERED


class ReferenceModel:
    """The model as transformers runs it, in float32, with its own attention; of blocks, what these hold."""

    def __init__(self, model: str, dtype: str, device: str) -> None:
        self._model: Any = read_reference(model, dtype, parse_device(device))
        self.is_quantized = is_quantized(self._model)

    def logits(self, tokens: Sequence[int], count: int, source: Sequence[int] = ()) -> NDArray[np.float32]:
        """(count, V) logits of the last `count` tokens, from one forward over all of them, and over a source if any."""
        ids = torch.tensor([list(tokens)], device=self._model.device)
        given: dict[str, Any] = {"input_ids": ids}
        if source:
            given = {"input_ids": torch.tensor([list(source)], device=self._model.device), "decoder_input_ids": ids}
        takes_count = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        few = {"logits_to_keep": count} if takes_count else {}  # a long prompt's logits would fill the memory
        with torch.inference_mode():
            found = self._model(**given, use_cache=False, **few).logits[0, -count:]
        return found.float().cpu().numpy()  # type: ignore[no-any-return]


class ReferenceLaw:
    """Logits to scores by transformers' processors, for one kind of sampling and one prompt, or beginning of an output.

    `forbidden` are the sequences of tokens that the generation settings of an encoder-decoder forbid.
    """

    def __init__(
        self,
        sampling: dict[str, Any],
        prompt: Sequence[int],
        end_token_ids: Sequence[int],
        forbidden: Sequence[Sequence[int]] = (),
    ) -> None:
        self._params = SamplingParams(**sampling)
        self._prompt = list(prompt)
        self._ends = sorted(end_token_ids)
        self._forbidden = [list(word) for word in forbidden]

    def scores(self, generated: Sequence[int], row: NDArray[np.floating[Any]]) -> Floats:
        """Scores (V,) float64 after prompt and generated tokens; -inf where a token is dropped."""
        return self._truncated(generated, row)[0]

    def _truncated(self, generated: Sequence[int], row: NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
        """The scores, and what they were before top-p."""
        params = self._params
        whole = torch.tensor([[*self._prompt, *generated]])
        scores = torch.tensor(row, dtype=torch.float64)[None]
        if self._forbidden:
            scores = NoBadWordsLogitsProcessor(self._forbidden)(whole, scores)
        if params.logit_bias:
            bias = [[[int(token)], float(value)] for token, value in params.logit_bias.items()]
            scores = SequenceBiasLogitsProcessor(bias)(whole, scores)
        if params.min_tokens and self._ends:
            few = MinNewTokensLengthLogitsProcessor(len(self._prompt), params.min_tokens, self._ends)
            scores = few(whole, scores)
        if params.repetition_penalty != 1.0:
            scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(whole, scores)
        scores = scores - self._counted(generated, scores.shape[-1])
        for warper in self._warpers():
            scores = warper(whole, scores)
        before = scores
        if not params.is_greedy and params.top_p < 1:
            scores = TopPLogitsWarper(params.top_p)(whole, scores)
        return scores[0].numpy(), before[0].numpy()

    def chances(self, generated: Sequence[int], row: NDArray[np.floating[Any]]) -> Chances:
        """What a token is drawn with after prompt and generated tokens, from logits (V,)."""
        scores, whole = self._truncated(generated, row)
        weights = np.exp(scores - scores.max())
        lowest = scores[scores > -np.inf].min()
        ties = np.flatnonzero(whole == lowest)  # in bfloat16 equal logits are common
        is_cut = bool(np.isneginf(scores[ties]).any())
        return Chances(weights / weights.sum(), ties.tolist() if is_cut else ())

    def _counted(self, generated: Sequence[int], vocab_size: int) -> torch.Tensor:
        """(1, V): frequency * count + presence * (count > 0), over generated tokens."""
        penalty = torch.zeros(1, vocab_size, dtype=torch.float64)
        for token, count in Counter(generated).items():
            penalty[0, token] = self._params.frequency_penalty * count + self._params.presence_penalty
        return penalty

    def _warpers(self) -> list[Any]:
        params = self._params
        if params.is_greedy:
            return []
        found: list[Any] = [TemperatureLogitsWarper(params.temperature)]
        if params.min_p > 0:
            found.append(MinPLogitsWarper(params.min_p))
        if params.top_k > 0:
            found.append(TopKLogitsWarper(params.top_k))
        return found
