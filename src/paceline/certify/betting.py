"""An anytime-valid test of tokens against the probabilities that they should have been drawn with.

Money is bet on each token before it is seen: at fair odds, 1 / probability, wealth does not grow on average if the
probabilities are right (`paceline.wealth`). V is the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from paceline.wealth import Floats, log_mean_exp, log_sum_exp

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
    """Bets on tokens: half of the money by strategies that look no further back, the rest by what a context has taught.

    The i-th context has a share of 1 / (i (i + 1)), set aside before it is met: so the sum is still a fair game.
    """

    def __init__(self) -> None:
        self._steady = np.zeros(len(_TILTS) + 1)
        self._learnt: dict[Hashable, Floats] = {}  # a context's wealth by prior
        self._seen: dict[Hashable, Counter[int]] = {}
        self.num_tokens = 0

    @property
    def num_contexts(self) -> int:
        """Contexts met so far."""
        return len(self._seen)

    @property
    def log_wealth(self) -> float:
        """The logarithm of the wealth of all strategies together; 0 at the start."""
        learnt = [log_mean_exp(wealth) - np.log(i * (i + 1)) for i, wealth in enumerate(self._learnt.values(), 1)]
        untouched = -np.log(len(learnt) + 1)
        return log_mean_exp(np.array([log_mean_exp(self._steady), log_sum_exp(np.array([*learnt, untouched]))]))

    def bet(self, context: Hashable, chances: Chances, drawn: int) -> None:
        """Bet on a token that was drawn in a context; one that has no chance makes infinitely rich."""
        token = chances.stands_for(drawn)
        seen = self._seen.setdefault(context, Counter())
        wealth = self._learnt.setdefault(context, np.zeros(len(_PRIORS)))
        own = float(chances.values[token])
        if own <= 0.0:
            self._steady[:] = np.inf
        else:
            total, priors = seen.total(), np.array(_PRIORS)
            self._steady += np.log(chances.odds(token))
            wealth += np.log((seen[token] / own + priors) / (total + priors))
        seen[token] += 1
        self.num_tokens += 1
