"""The gate: a candidate drafts once it has been shown to pay for itself, on traffic that it never learnt from.

Candidate k of a line of them may be promoted wrongly with probability alpha_k at most, and these sum to alpha. So of
all candidates that ever come, one that does not pay gets through with probability alpha, however often one looks.
"""

from __future__ import annotations

import math

from paceline.learning.betting import Bet, growth

ALPHA = 0.05  # that any candidate of a line is promoted though it does not pay
LOSS_ALARM = 20.0  # wealth of a bet that a candidate loses in a stratum, from which on it is not promoted

_MAX_STRATA = 64  # that are told apart; further ones count together


def level(attempt: int, alpha: float = ALPHA) -> float:
    """alpha_k of the k-th candidate, k >= 1: they sum to alpha."""
    return alpha * 6.0 / (math.pi**2 * attempt**2)


def predicted_anchors(gain: float, deviation: float, bound: float, attempt: int = 1, alpha: float = ALPHA) -> float:
    """Differences until a candidate is promoted that exceeds the margin by so much on average.

    To second order, and with the best stakes from the first on: having to learn them takes more.

    Args:
        gain: the mean of the differences, less the margin.
        deviation: their standard deviation.
        bound: that of the gate, and the margin.
        attempt: the candidate's number, as in `level`.
        alpha: as in `level`.
    """
    speed = growth(gain / bound, (deviation**2 + gain**2) / bound**2)
    return -math.log(level(attempt, alpha)) / speed


class Gate:
    """Weighs one candidate against the incumbent, on differences that each concern later traffic than either has seen.

    A difference is what the candidate would have done less what the incumbent would have, where the target's text is
    the same: in tokens, in overlaps with the target's law, or as a share of the time. Each is of another request, since
    anchors of one are alike: bet on one by one they make a candidate rich that is good at half of the requests alone.

    Args:
        attempt: the candidate's number in its line, from 1.
        bound: no difference is larger: the longest draft for tokens, 1 for overlaps.
        margin: the difference that pays for what drafting with the candidate costs more.
        alpha: see `ALPHA`.
    """

    def __init__(self, attempt: int, bound: float, margin: float, alpha: float = ALPHA) -> None:
        self.log_threshold = -math.log(level(attempt, alpha))
        self._bound = bound
        self._gain = Bet(bound, margin)
        self._losses: dict[str, Bet] = {}  # by stratum: that the candidate does worse there

    @property
    def num_differences(self) -> int:
        """How many were seen."""
        return self._gain.num_differences

    @property
    def log_wealth(self) -> float:
        """The evidence that the candidate pays."""
        return self._gain.log_wealth

    @property
    def is_blocked(self) -> bool:
        """Whether some stratum shows that the candidate does worse there, however well it does on the whole."""
        return any(bet.log_wealth > math.log(LOSS_ALARM) for bet in self._losses.values())

    @property
    def is_passed(self) -> bool:
        """Whether the candidate may draft."""
        return self.log_wealth >= self.log_threshold and not self.is_blocked

    @property
    def remaining(self) -> float:
        """Further differences until the evidence is enough, if they go on like the latest; infinite if never."""
        return self._gain.remaining(self.log_threshold)

    def see(self, difference: float, stratum: str = "") -> None:
        """Take the next difference, in the order in which their places were chosen, and where it belongs."""
        if stratum not in self._losses and len(self._losses) >= _MAX_STRATA:
            stratum = "\n"  # no stratum's name has a line of its own
        self._losses.setdefault(stratum, Bet(self._bound)).see(-difference)
        self._gain.see(difference)
