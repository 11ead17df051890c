"""A two-sample test of short texts over several prompts, and what shift it would find.

Of each prompt the texts are categories: whole; cut to a few characters, so that a shift of the first token and one of
a later token both show; and by how common they are in both samples together, so that a temperature that is off shows.
Each gives Pearson's statistic of homogeneity; standardised over random exchanges of the two samples, they are added up
to one statistic a prompt. Two of all prompts together decide: their sum, which sees
a small shift everywhere, and their maximum, which sees a large one in one prompt. P-values are those of exchanges, so
that they hold whatever the texts are (Good 2005, "Permutation tests"; the maximum: Westfall and Young 1993).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FALSE_ALARM = 1e-3  # the chance that equal laws are called different, both statistics together
SURE = 0.9  # the chance with which a shift must be found to be called found
_UNSEEN = "\uffff"  # stands for texts that nobody gave
_CUTS = (2, 6)  # characters
_EXCHANGES = 4_999
_SIMULATED = 200
_SHIFTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)  # total variation distances


@dataclass(frozen=True)
class Samples:
    """Texts of one prompt by both servers."""

    baseline: Sequence[str]
    candidate: Sequence[str]


@dataclass(frozen=True)
class Power:
    """The smallest shift that is found nearly surely.

    Attributes:
        distance: total variation distance in every prompt, or as much of it as a prompt allows; None: none is.
        chance: that it is found, the lower one of a shift towards the likeliest text and one from the likely texts to
            the others.
    """

    distance: float | None
    chance: float


class _Prompt:
    """The categories of one prompt, the statistic's scale, and its values under exchanges."""

    def __init__(self, samples: Samples, rng: np.random.Generator) -> None:
        counted = [Counter(samples.baseline), Counter(samples.candidate)]
        texts = [*sorted(counted[0] | counted[1]), _UNSEEN]
        self.counts: Ints = np.array([[own[text] for text in texts] for own in counted])
        self.sizes = self.counts.sum(axis=1)
        pooled = self.counts.sum(axis=0)
        self._groupings = [_grouping([text[:cut] for text in texts]) for cut in _CUTS]
        self._groupings += [_grouping(texts), _grouping([int(count).bit_length() for count in pooled])]
        exchanged = rng.multivariate_hypergeometric(pooled, int(self.sizes[1]), size=_EXCHANGES)
        candidates = np.concatenate([self.counts[1][None], exchanged])
        raw = self._raw(pooled[None] - candidates, candidates)
        self._mean, self._spread = raw.mean(axis=0), raw.std(axis=0)
        self.values = self._scaled(raw)  # (1 + exchanges,), the first of which was observed

    @property
    def distance(self) -> float:
        """Total variation between the two samples."""
        baseline, candidate = self.counts / self.sizes[:, None]
        return float(np.abs(baseline - candidate).sum() / 2)

    @property
    def num_kinds(self) -> int:
        """Different texts."""
        return int(self.counts.shape[1]) - 1

    def simulated(self, shift: Callable[[Floats, float], Floats], distance: float, rng: np.random.Generator) -> Floats:
        """(simulated,) values where the candidate's law is shifted by a distance."""
        law = self.counts.sum(axis=0) / self.sizes.sum()
        shifted = np.maximum(shift(law, distance), 0.0)
        baseline = rng.multinomial(int(self.sizes[0]), law, size=_SIMULATED)
        candidate = rng.multinomial(int(self.sizes[1]), shifted / shifted.sum(), size=_SIMULATED)
        return self._scaled(self._raw(baseline, candidate))

    def _raw(self, baseline: Ints, candidate: Ints) -> Floats:
        """(n, groupings): Pearson's statistics of (n, C) counts."""
        found = []
        for order, starts in self._groupings:
            both = [np.add.reduceat(counts[:, order], starts, axis=1) for counts in (baseline, candidate)]
            found.append(_pearson(both[0], both[1], self.sizes))
        return np.stack(found, axis=1)

    def _scaled(self, raw: Floats) -> Floats:
        spread = np.where(self._spread > 1e-9, self._spread, np.inf)
        found: Floats = ((raw - self._mean) / spread).sum(axis=1)
        return found


class TwoSample:
    """The test of all prompts together; each has at least one text of both servers.

    Attributes:
        p_sum: p-value of the sum over prompts.
        p_max: of the largest among prompts, so corrected for their number.
        worst: the prompt with the largest statistic.
        distances: total variation between the samples of each prompt; noise included.
        num_kinds: different texts of each prompt.
    """

    def __init__(self, samples: Sequence[Samples], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._prompts = [_Prompt(one, self._rng) for one in samples]
        values = np.stack([prompt.values for prompt in self._prompts])  # (P, 1 + exchanges)
        self._sums, self._peaks = values.sum(axis=0), values.max(axis=0)
        self.p_sum, self.p_max = _p_value(self._sums), _p_value(self._peaks)
        self.worst = int(values[:, 0].argmax())
        self.distances = [prompt.distance for prompt in self._prompts]
        self.num_kinds = [prompt.num_kinds for prompt in self._prompts]

    @property
    def is_different(self) -> bool:
        """Whether the laws are called different."""
        return min(self.p_sum, self.p_max) <= FALSE_ALARM / 2

    def power(self) -> Power:
        """By simulation from the pooled texts, with the critical values of their exchanges."""
        limits = [np.quantile(values, 1 - FALSE_ALARM / 2) + 1e-9 for values in (self._sums, self._peaks)]
        chance = 0.0
        for distance in _SHIFTS:
            chances = []
            for shift in (_sharper, _flatter):
                values = np.stack([prompt.simulated(shift, distance, self._rng) for prompt in self._prompts])
                found = (values.sum(axis=0) > limits[0]) | (values.max(axis=0) > limits[1])
                chances.append(float(found.mean()))
            chance = min(chances)
            if chance >= SURE:
                return Power(distance, chance)
        return Power(None, chance)


def _sharper(law: Floats, distance: float) -> Floats:
    """A law (C,) moved towards its likeliest text, by as much of a distance as that takes."""
    aim = np.zeros_like(law)
    aim[law.argmax()] = 1.0
    found: Floats = law + min(distance / max(1 - law.max(), 1e-9), 1.0) * (aim - law)
    return found


def _flatter(law: Floats, distance: float) -> Floats:
    """A law (C,) moved from its likely texts, which have half of the chances together, to all others."""
    order = np.argsort(-law, kind="stable")
    is_likely = np.zeros(law.size, dtype=bool)
    is_likely[order[: int(np.searchsorted(np.cumsum(law[order]), 0.5)) + 1]] = True
    given = law * is_likely
    taken = (law + 1e-3) * ~is_likely
    found: Floats = law + min(distance, given.sum()) * (taken / taken.sum() - given / given.sum())
    return found


def _pearson(baseline: Ints, candidate: Ints, sizes: Ints) -> Floats:
    """Homogeneity of (n, C) counts of two samples of these sizes; categories that nobody has count nothing."""
    both = baseline + candidate
    share = sizes[1] / sizes.sum()
    off = candidate - both * share
    found: Floats = (off**2 / np.maximum(both, 1)).sum(axis=1) / (share * (1 - share))
    return found


def _grouping(labels: Sequence[str | int]) -> tuple[Ints, Ints]:
    """An order of the categories in which those of the same label are side by side, and where each label begins."""
    _, index = np.unique(np.array(labels, dtype=object), return_inverse=True)
    order = np.argsort(index, kind="stable")
    return order, np.flatnonzero(np.diff(index[order], prepend=-1))


def _p_value(values: Floats) -> float:
    """The share of values at least as large as the first."""
    return float((values >= values[0] - 1e-9).mean())


def all_likeliest(texts: Sequence[str]) -> list[str]:
    """The commonest text in place of each: what a server gives that takes no notice of the temperature."""
    (commonest, _), *_ = Counter(texts).most_common(1)
    return [commonest] * len(texts)
