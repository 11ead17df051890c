"""What asking a drafter costs and brings: whether to ask it now, let it look further, or let it sleep."""

from __future__ import annotations

from paceline.pacing.trackers import Mean, Quantile

_UPPER = 0.75
_LONG = 8  # unread tokens from which reading is what a proposal's time is spent on
_READING = 1e-6  # seconds to read a token, before it is known
_SHARED_KEEP, _REQUEST_KEEP = 1.0 - 1.0 / 64, 1.0 - 1.0 / 8


class DrafterCost:
    """Seconds of one drafter's work for one request, as upper bounds; shared by all requests."""

    def __init__(self, guess: float) -> None:
        self._first = Quantile(guess, _UPPER, is_guess=True)  # a proposal, the tokens since the last step read
        self._token = Quantile(_READING, _UPPER, is_guess=True)  # reading a token
        self.more = Quantile(guess, _UPPER, is_guess=True)  # a further stage
        self._is_cold = True
        self._has_stages = False
        self._later = Quantile(guess, 0.5, is_guess=True)  # all further stages of a proposal together

    @property
    def usual(self) -> float:
        """What a proposal takes, with as many further stages as there usually are, but for long reading."""
        return self._first.value + (self._later.value if self._has_stages else 0.0)

    def reading(self, unread: int) -> float:
        """What reading takes that a first proposal does not."""
        return self._token.value * unread if unread >= _LONG else 0.0

    def asking(self, unread: int) -> float:
        """What a first proposal takes."""
        return self._first.value + self.reading(unread)

    def learn(self, unread: int, first: float, later: float, num_later: int) -> None:
        """Take in the seconds of a proposal: of its first stage, and of `num_later` others together.

        The very first one is left out: what is prepared at first use makes it slower than any other.
        """
        if self._is_cold:
            self._is_cold = False
            return
        if unread < _LONG:
            self._first.learn(first)
        else:
            self._token.learn(max(first - self._first.value, 0.1 * first) / unread)
        if num_later:
            self._has_stages = True
            self._later.learn(later)
            self.more.learn(later / num_later)


class Habit:
    """How one drafter has done for one request, and when it was last asked."""

    __slots__ = ("_shared", "_worth", "asked_at", "read")

    def __init__(self, shared: Mean) -> None:
        self._shared = shared
        self._worth = Mean(shared.value, 4.0, _REQUEST_KEEP)
        self.asked_at = 0  # output tokens when it was asked last
        self.read = 0  # tokens of the request that it has read

    @property
    def worth(self) -> float:
        """Tokens that its proposal may be expected to bring."""
        return self._worth.value

    def learn(self, tokens: float) -> None:
        """Take in what a proposal was expected to bring, by calibrated chances."""
        self._worth.learn(tokens)
        self._shared.learn(tokens)


def fresh_worth() -> Mean:
    """What is expected of a drafter that nobody has asked yet: a token, but not for long."""
    return Mean(1.0, 2.0, _SHARED_KEEP)
