"""A sampler whose law is another library's: its logits processors make the scores, its stopping criteria the end.

Verification asks for one place at a time along the target's own path, and takes nothing back. So processors and
criteria meet just the prefixes that they would meet without drafts, each once and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.params import SamplingParams
from paceline.sampling.noise import Scores
from paceline.sampling.sampler import SampledToken, Sampler, SamplerContext

Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # ids (1, n) and scores (1, V) to scores (1, V)
Criterion = Callable[..., Any]  # ids (1, n), and scores (1, V) of each place or None, to whether this is the end, (1,)


@dataclass
class RowLaw:
    """How one row of a batch is decoded.

    Attributes:
        ids: of the row as transformers has it, padded on its left: (L,).
        num_new: most tokens behind them.
        end_tokens: those that end the row.
        processors: in their order.
        criteria: those that the engine does not know: all but end tokens and the limit.
        keeps: whether logits and scores are kept.
        index: of the row, which tells its noise from that of the others.
    """

    ids: torch.Tensor
    num_new: int
    end_tokens: frozenset[int]
    processors: Sequence[Processor]
    criteria: Sequence[Criterion]
    keeps: bool
    index: int
    logits: list[NDArray[np.float32]] = field(default_factory=list)  # (V,) each, the model's own
    scores: list[NDArray[np.float32]] = field(default_factory=list)  # (V,) each, behind the processors
    error: BaseException | None = None  # that a processor or a criterion raised

    def sampler(
        self, params: SamplingParams, context: SamplerContext, prompt: Sequence[int], seed: int, *_: Any
    ) -> LawSampler:
        """The sampler of the row's request."""
        return LawSampler(self, params, context, prompt, seed)


class LawSampler(Sampler):
    """Draws from what a row's processors make of the logits, and ends where its criteria say so."""

    def __init__(
        self, law: RowLaw, params: SamplingParams, context: SamplerContext, prompt: Sequence[int], seed: int
    ) -> None:
        super().__init__(params, context, prompt, seed, law.index)
        self._law = law
        self._num_padded = law.ids.shape[0]
        self._ids = np.pad(law.ids.cpu().numpy(), (0, law.num_new))[None]
        self._num_left = law.num_new

    def sample(self, logits: NDArray[np.float32]) -> SampledToken:
        """See `Sampler`; behind the end, which is cut off, nobody's processors are asked."""
        if self.end is not None:
            token = int(logits.argmax())
            return SampledToken(token, 0.0, 0.0)
        return super().sample(logits)

    def advance(self, token: int) -> None:
        """See `Sampler`; then the criteria are asked."""
        super().advance(token)
        if self.end is not None:
            return
        self._ids[0, self._num_padded] = token
        self._num_padded += 1
        self._num_left -= 1
        if self._num_left == 0 or token in self._law.end_tokens or self._is_over():
            self.end = len(self._tokens)

    def process(self, logits: Scores) -> Scores:
        """See `Sampler`: scores (V,) float32 as the processors leave them."""
        scores = self._processed(logits) if self._law.processors else logits
        if self._law.keeps:
            self._law.logits.append(np.array(logits, np.float32))
            self._law.scores.append(np.array(scores, np.float32))
        return scores

    @torch.no_grad()
    def _processed(self, logits: Scores) -> Scores:
        scores = torch.from_numpy(np.array(logits, np.float32))[None].to(self._law.ids.device)
        try:
            for processor in self._law.processors:
                scores = processor(self._prefix(), scores)
        except Exception as error:
            self._fail(error)
            return logits
        return scores[0].to("cpu", torch.float32).numpy()

    @torch.no_grad()
    def _is_over(self) -> bool:
        try:
            ids = self._prefix()
            scores = self._scores() if self._law.criteria else None
            answers = [bool(torch.as_tensor(over(ids, scores)).all()) for over in self._law.criteria]  # all are asked
            return any(answers)
        except Exception as error:
            self._fail(error)
            return True

    def _prefix(self) -> torch.Tensor:
        """The row so far, (1, n); made in this thread, whatever mode the caller's is in."""
        return torch.from_numpy(self._ids[:, : self._num_padded]).to(self._law.ids.device)

    def _scores(self) -> tuple[torch.Tensor, ...] | None:
        return tuple(torch.from_numpy(kept)[None] for kept in self._law.scores) if self._law.keeps else None

    def _fail(self, error: BaseException) -> None:
        """Note an error of a caller's own code, and end the request with the next token."""
        self._law.error = self._law.error or error
        self.end = len(self._tokens) + 1
