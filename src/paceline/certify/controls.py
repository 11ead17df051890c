"""Negative controls: engines with a fault each, on which the same checks must fail. Nothing else may be made of them.

A fault of the law is planted where a request begins: its law is replaced by one that is wrong. A fault of the cache is
a target that passes everything on but what it commits, or a prefix cache that finds what it should not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Ask, Budget, Pacer, Target
from paceline.engine.request import Request
from paceline.engine.tree import DraftTree
from paceline.model.prefix import Before, PrefixCache
from paceline.sampling.noise import Ids, Scores
from paceline.sampling.sampler import SampledToken, Sampler
from paceline.testing import WrappedPacer, WrappedTarget

_LARGE_NOISE = 1.25  # a Gumbel variate is above it a quarter of the time


class SteppedLaw(Sampler):
    """A law that is told where steps begin, as no law should be."""

    def begin_step(self) -> None:
        """The next tokens are one step's."""


Law = TypeVar("Law", bound=SteppedLaw)


def recast(law: Sampler, kind: type[Law]) -> Law:
    """A law of another kind in the state of this one."""
    made = kind.__new__(kind)
    made.__dict__.update(law.__dict__)
    return made


class FrozenPenalties(SteppedLaw):
    """Counts what was generated at the beginning of a step, so that penalties stand still over a draft."""

    def begin_step(self) -> None:
        """See `SteppedLaw`."""
        self._frozen = self._counts.copy(), self._seen.copy()

    def process(self, logits: Scores) -> Scores:
        """See `Sampler`, but of the counts at the beginning of the step."""
        now = self._counts, self._seen
        self._counts, self._seen = self._frozen
        try:
            return super().process(logits)
        finally:
            self._counts, self._seen = now


class _StuckNoise:
    """Noise that is the same at all places of a step."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.place = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def best(self, scores: Scores, position: int, count: int = 1) -> tuple[Ids, NDArray[np.float64]]:
        """See `Noise`, but of the place where the step begins."""
        found: tuple[Ids, NDArray[np.float64]] = self._inner.best(scores, self.place, count)
        return found


class NoiseAtTheWrongIndex(SteppedLaw):
    """Uses the noise of a step's first token for all of the step's tokens."""

    def begin_step(self) -> None:
        """See `SteppedLaw`."""
        if not isinstance(self.noise, _StuckNoise):
            self.noise = _StuckNoise(self.noise)  # type: ignore[assignment]
        self.noise.place = len(self._tokens)  # type: ignore[attr-defined]


class ArgmaxFallback(SteppedLaw):
    """Now and then takes the likeliest token although it should sample: at a quarter of all places."""

    def sample(self, logits: NDArray[np.float32]) -> SampledToken:
        """See `Sampler`."""
        if not self.params.is_greedy and self.noise.at(len(self._tokens))[0] > _LARGE_NOISE:
            likeliest = np.full_like(logits, -np.inf)
            best = int(np.argmax(self.process(logits)))
            likeliest[best] = logits[best]
            return super().sample(likeliest)
        return super().sample(logits)


class FaultyPacer(WrappedPacer):
    """Passes everything on, and gives every request a law of some kind."""

    def __init__(self, inner: Pacer, kind: type[SteppedLaw]) -> None:
        super().__init__(inner)
        self._kind = kind

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        request.sampler = recast(request.sampler, self._kind)
        super().start(request, prefill)

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        for request in requests:
            assert isinstance(request.sampler, SteppedLaw)  # since it began
            request.sampler.begin_step()
        return super().draft(requests, budget, ask)


class StaleRow(WrappedTarget):
    """A target that keeps the cached row of a rejected draft in place of the accepted one beside it."""

    def __init__(self, inner: Target) -> None:
        super().__init__(inner)
        self._trees: dict[int, DraftTree] = {}

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`."""
        self._trees = {request.id: tree for request, tree in work}
        return super().score(work)

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """See `Target`, but of another path where the last accepted node has a sibling."""
        tree = self._trees[request.id]
        others = [n for n in range(len(tree)) if path and tree.parents[n] == tree.parents[path[-1]] and n != path[-1]]
        super().commit(request, [*path[:-1], others[0]] if others else path)


class RepeatedPages(PrefixCache):
    """A prefix cache that hands out the first page it found for all of them.

    Another order would not do: keys know their positions, so attention would only round otherwise.
    """

    def __init__(self, inner: PrefixCache) -> None:
        self.__dict__ = inner.__dict__  # what is made known here is known there

    def search(self, before: Before, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """See `PrefixCache`."""
        found = super().search(before, tokens)
        return [(found[0][0], serial) for _, serial in found]
