"""An anytime-valid test of tokens against the probabilities that they should have been drawn with.

Money is bet on each token before it is seen: at fair odds, 1 / probability, wealth does not grow on average if the
probabilities are right. By Ville's inequality wealth ever reaches 1 / a with probability a at most, however often one
looks and whenever one stops (Shafer 2021, "Testing by betting"; Ramdas et al. 2023, arXiv 2210.01948). Wealth is kept
as its logarithm. V is the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FALSE_ALARM = 1e-6  # the chance that a faultless engine is called faulty, over all tests of a certificate together

_TILTS = (0.5, 0.8, 1.25, 2.0)  # powers of the probabilities: too hot, too cold
_LUMP = 0.2  # the likeliest token once in a while whatever was drawn
_PRIORS = (20.0, 300.0)  # draws that the probabilities count for beside what was seen in the same context


class Chances:
    """What a token should be drawn with, and what each strategy that looks no further back would make of it.

    Some tokens may stand at the edge of a truncation with equal scores, where it is free which of them it keeps: these
    count as one, and the first stands for all.
    """

    def __init__(self, values: Floats, edge: Sequence[int] = ()) -> None:
        self.values = values.copy()
        self._edge = frozenset(edge)
        self._first = min(edge, default=-1)
        if edge:
            self.values[list(edge)] = 0.0
            self.values[self._first] = values[list(edge)].sum()
        self._likeliest = int(self.values.argmax())
        some = self.values[self.values > 0]
        self._norms = np.array([float(np.power(some, tilt).sum()) for tilt in _TILTS])

    def stands_for(self, token: int) -> int:
        """The token itself, or the one that stands for it."""
        return self._first if token in self._edge else token

    def odds(self, token: int) -> Floats:
        """Each strategy's chance of a token over the token's own, which is not 0."""
        own = self.values[token]
        tilted = own ** (np.array(_TILTS) - 1.0) / self._norms
        lumped = (1 - _LUMP) + _LUMP * (token == self._likeliest) / own
        return np.array([*tilted, lumped])


class Bettor:
    """Bets on the tokens of some contexts: a mixture of strategies, each begun with the same share."""

    def __init__(self) -> None:
        self._wealth = np.zeros(len(_TILTS) + 1 + len(_PRIORS))
        self._seen: dict[Hashable, Counter[int]] = {}
        self.num_tokens = 0

    @property
    def log_wealth(self) -> float:
        """The logarithm of the mixture's wealth; 0 at the start."""
        return log_mean_exp(self._wealth)

    def bet(self, context: Hashable, chances: Chances, drawn: int) -> None:
        """Bet on a token that was drawn in a context; one that has no chance makes infinitely rich."""
        token = chances.stands_for(drawn)
        seen = self._seen.setdefault(context, Counter())
        own = float(chances.values[token])
        if own <= 0.0:
            self._wealth[:] = np.inf
        else:
            total = seen.total()
            learnt = [(seen[token] / own + prior) / (total + prior) for prior in _PRIORS]
            self._wealth += np.log([*chances.odds(token), *learnt])
        seen[token] += 1
        self.num_tokens += 1


def log_mean_exp(values: Floats) -> float:
    """log(mean(exp(values)))."""
    peak = float(np.max(values))
    return peak if np.isinf(peak) else peak + float(np.log(np.mean(np.exp(values - peak))))


def p_value(log_wealth: float) -> float:
    """The anytime-valid p-value of a wealth: its inverse, at most 1."""
    return float(np.exp(-max(log_wealth, 0.0)))
