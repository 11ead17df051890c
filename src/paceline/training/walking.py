"""Tokens a step as an engine has them: held-out texts walked from end to end, in expectation.

The mean over all places of a text flatters: an engine leaves easy places in long steps, and begins steps at hard ones.
So the chance that a step begins at each place is followed through the text. No chance is involved: each step's length
is known as a distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.training import anchors
from paceline.training.data import Document
from paceline.training.evaluate import DEPTH, Key, Scored, accepted
from paceline.training.packing import Packed


@dataclass
class Walked:
    """What steps came to: of each document by its number, the tokens that they brought and how many there were."""

    documents: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def tau(self) -> float:
        """Tokens a step, over all."""
        return self.over(self.documents)

    def over(self, chosen: Iterable[int]) -> float:
        """The same over some documents."""
        sums = np.array([self.documents[number] for number in chosen]).reshape(-1, 2).sum(0)
        return float(sums[0] / max(sums[1], 1e-9))

    def by_kind(self, documents: Sequence[Document]) -> dict[Key, float]:
        """The same by kind of text and temperature."""
        found: dict[Key, list[int]] = {}
        for number in self.documents:
            entry = documents[number].entry
            found.setdefault((entry.category, entry.temperature), []).append(number)
        return {key: self.over(members) for key, members in sorted(found.items())}


def walk(subject: Scored, batches: Iterable[Packed]) -> Walked:
    """Walk all documents of packed batches with chains of up to `DEPTH` drafts."""
    found = Walked()
    for batch in batches:
        chances, starts = _chances(subject, batch)
        sources = batch.source.cpu().numpy()
        for source in sorted({*sources[sources >= 0].tolist()}):
            rows, places = np.nonzero(sources == source)
            mine = starts[rows[0], places]
            steps = steps_through(chances[rows[0], places[mine]])
            found.documents[source] = (float(mine.sum()), steps)
    return found


def steps_through(chances: NDArray[np.float64]) -> float:
    """Expected steps over places (L, P) in a row, from the chance that each draft is right if those before it were.

    A step at a place goes one place further than it has right drafts.
    """
    length, depth = chances.shape
    begins = np.zeros(length + depth + 1)
    begins[:1] = 1.0
    for place, own in enumerate(chances):
        reached = np.concatenate([[1.0], own.cumprod(), [0.0]])
        begins[place + 1 : place + depth + 2] += begins[place] * (reached[:-1] - reached[1:])
    return float(begins[:length].sum())


def _chances(subject: Scored, batch: Packed) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, S, P) the chance of each draft of a step that begins at a place, and (N, S) whether one may."""
    n, s = batch.tokens.shape
    depth = min(subject.depth, DEPTH)
    places = torch.arange(s, device=batch.tokens.device).expand(n, s)
    chosen = anchors.at(batch, places, depth)
    wanted, given = subject.logits(batch, chosen)
    rows = chosen.before.flatten(1)
    tokens = batch.tokens.gather(1, (rows + 1).clamp(max=s - 1)).flatten()
    found = accepted(wanted, given, batch.heat.gather(1, rows).flatten(), tokens).view(n, s, depth)
    starts = anchors.candidates(batch)
    return (found * chosen.is_valid).double().cpu().numpy(), starts.cpu().numpy()
