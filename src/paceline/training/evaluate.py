"""How far a drafter would come on held-out text that the target wrote: tau, before any engine runs it.

Teacher-forced: the draft is walked along what the target wrote. There the chance that slot k is right, given that the
target chose its token x_k, is that of `accepted`; noise at different positions is independent, so the mean over text of
1 + sum_k prod_{i <= k} of them is the expected length of a chain's step, bonus included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.training import anchors
from paceline.training.anchors import Anchors
from paceline.training.data import Document
from paceline.training.losses import overlap
from paceline.training.packing import Packed

DEPTH = 7  # draft tokens of the chains that are compared
_ROWS = 128  # whose distributions are worked on at once, within the processor's cache
_TINY = 1e-30  # of a probability

Key = tuple[str, float]  # kind of text, temperature


class Scored(Protocol):
    """What can be evaluated."""

    depth: int  # tokens that it proposes

    def logits(self, batch: Packed, chosen: Anchors) -> tuple[torch.Tensor, torch.Tensor]:
        """The target's logits and its own (N * A * P, V) for proposals, each behind the true token before it."""


@dataclass
class Tally:
    """Sums over anchors of one kind of text at one temperature."""

    count: int = 0
    reached: NDArray[np.float64] = field(default_factory=lambda: np.zeros(DEPTH))  # chance that slots 0..k are right
    overlap: NDArray[np.float64] = field(default_factory=lambda: np.zeros(DEPTH))
    squares: float = 0.0  # of the anchors' lengths

    def add(self, accepted: NDArray[np.float64], shared: NDArray[np.float64]) -> None:
        """Take in anchors (A, P)."""
        reached = accepted.cumprod(-1)
        depth = reached.shape[1]
        self.count += len(reached)
        self.reached[:depth] += reached.sum(0)
        self.overlap[:depth] += shared.sum(0)
        self.squares += float(((1.0 + reached.sum(-1)) ** 2).sum())

    def merge(self, other: Tally) -> Tally:
        """Both together."""
        parts = (self.count + other.count, self.reached + other.reached, self.overlap + other.overlap)
        return Tally(*parts, self.squares + other.squares)

    @property
    def tau(self) -> float:
        """Tokens a step."""
        return 1.0 + float(self.reached.sum()) / max(self.count, 1)

    @property
    def error(self) -> float:
        """Its standard error, as if anchors were independent: those of one document are not."""
        count = max(self.count, 1)
        return math.sqrt(max(self.squares / count - self.tau**2, 0.0) / count)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        before = np.concatenate([[float(self.count)], self.reached[:-1]])
        return {
            "anchors": self.count,
            "tau": self.tau,
            "error": self.error,
            "accepted_by_position": (self.reached / np.maximum(before, 1e-9)).round(4).tolist(),
            "overlap_by_position": (self.overlap / max(self.count, 1)).round(4).tolist(),
        }


@dataclass
class Scores:
    """Tallies by kind of text and temperature."""

    tallies: dict[Key, Tally] = field(default_factory=dict)

    @property
    def tau(self) -> float:
        """Tokens a step over all anchors."""
        return self.over(lambda key: True).tau

    def over(self, wanted: Callable[[Key], bool]) -> Tally:
        """Those that are wanted, together."""
        total = Tally()
        for key, tally in self.tallies.items():
            total = total.merge(tally) if wanted(key) else total
        return total

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {f"{kind} at {heat:g}": tally.as_dict() for (kind, heat), tally in sorted(self.tallies.items())}


def accepted(p: torch.Tensor, q: torch.Tensor, heat: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(R,) the chance that the drafter's best token is the target's, which is `tokens` (R,), from logits (R, V).

    At temperatures `heat` (R,) above 0 by shared noise: with rho = p / q, that both pick x has the chance of
    `losses.joint`, over p_x. At 0 it is whether the drafter's likeliest token is x.
    """
    parts = (torch.split(tensor, _ROWS) for tensor in (p, q, heat, tokens))
    return torch.cat([_accepted(*part) for part in zip(*parts, strict=True)])


def _accepted(p: torch.Tensor, q: torch.Tensor, heat: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    warm = heat.clamp_min(1e-3)[:, None]
    p, q = (p / warm).softmax(-1), (q / warm).softmax(-1)
    p_x, q_x = (part.gather(-1, tokens[:, None]) for part in (p, q))
    is_above = p * q_x >= p_x * q  # rho >= rho_x
    above = torch.where(is_above, p, 0.0).sum(-1)
    below = torch.where(is_above, 0.0, q).sum(-1)
    ratio = p_x[:, 0] / q_x[:, 0].clamp_min(_TINY)
    return torch.where(heat > 0, 1.0 / (above + ratio * below), (q.argmax(-1) == tokens).float())


def evaluate(subject: Scored, batches: Iterable[Packed], documents: Sequence[Document], stride: int = 5) -> Scores:
    """Walk every `stride`-th anchor of packed documents, all of them with `DEPTH` tokens behind it."""
    scores, depth = Scores(), min(subject.depth, DEPTH)
    for batch in batches:
        chosen = anchors.spread(batch, stride, depth)
        wanted, given = subject.logits(batch, chosen)
        rows, last = chosen.before.flatten(1), batch.tokens.shape[1] - 1
        heat, tokens = (
            batch.heat.gather(1, rows).flatten(),
            batch.tokens.gather(1, (rows + 1).clamp(max=last)).flatten(),
        )
        chances = accepted(wanted, given, heat, tokens)
        warm = heat.clamp_min(1e-3)[:, None]
        shared = overlap((wanted / warm).softmax(-1), (given / warm).softmax(-1))
        sources = batch.source.gather(1, chosen.places).flatten()
        _add(scores, documents, chosen, sources, (chances, shared))
    return scores


def _add(
    scores: Scores,
    documents: Sequence[Document],
    chosen: Anchors,
    sources: torch.Tensor,
    figures: tuple[torch.Tensor, torch.Tensor],
) -> None:
    is_valid = chosen.is_valid.all(-1).flatten().cpu().numpy()
    accepted, shared = (part.view(len(is_valid), -1).double().cpu().numpy() for part in figures)
    keys = [(documents[i].entry.category, documents[i].entry.temperature) for i in sources.tolist()]
    for key in dict.fromkeys(keys):
        mine = is_valid & np.array([one == key for one in keys])
        if mine.any():
            scores.tallies.setdefault(key, Tally()).add(accepted[mine], shared[mine])


def distinct(documents: Sequence[Document], n: int = 4) -> float:
    """The share of n-grams of the outputs that are different: looping text flatters any drafter."""
    grams = [
        tuple(output[i : i + n])
        for output in (document.tokens[document.entry.num_prompt_tokens :].tolist() for document in documents)
        for i in range(len(output) - n + 1)
    ]
    return len(set(grams)) / max(len(grams), 1)
