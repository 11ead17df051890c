"""What asking a drafter takes and brings, and how fast a request goes.

What is known of a drafter goes by its name and outlives requests; each request starts from there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from paceline.engine.request import Drafter, Request
from paceline.pacing.costs import Quantile
from paceline.pacing.success_counts import REQUEST_MEMORY, SuccessCounts

_UPPER = 0.75
_LONG = 8  # unread tokens from which reading is what a proposal's time is spent on
_READING = 1e-6  # seconds to read a token, before it is known
_SHARED_KEEP, _REQUEST_KEEP = 1.0 - 1.0 / 64, 1.0 - 1.0 / 8
_RATE_KEEP = 1.0 - 1.0 / 16  # steps over which the present rate of tokens is averaged
_MIN_NODES = 8  # draft nodes to ask for, where none was accepted last
_NEVER = 2**30  # output tokens
_LEAST = 1e-6  # tokens: so that nothing is divided by nothing


class Mean:
    """An average that forgets: a sample `n` samples old weighs `keep ** n`; it starts at `prior`."""

    __slots__ = ("_keep", "total", "weight")

    def __init__(self, prior: float, weight: float, keep: float) -> None:
        self.total = prior * weight
        self.weight = weight
        self._keep = keep

    @property
    def value(self) -> float:
        """The average."""
        return self.total / self.weight

    def learn(self, sample: float) -> None:
        """Take in a sample."""
        self.total = self.total * self._keep + sample
        self.weight = self.weight * self._keep + 1.0

    def restart(self, value: float) -> None:
        """Start from another prior of the same weight."""
        self.total = value * self.weight


class DrafterStatistics:
    """What asking one drafter takes, in seconds and as upper bounds, and what it brings: from all requests."""

    def __init__(self, guess: float, prior_tokens: float = 1.0) -> None:
        self.expected_tokens = Mean(prior_tokens, 1.0, _SHARED_KEEP)  # before anybody has asked, but not for long
        self.next_level = Quantile(0.0, _UPPER, is_guess=True)  # each level of depth after the first
        self._first = Quantile(guess, _UPPER, is_guess=True)  # a proposal one level deep, the last step's tokens read
        self._token = Quantile(_READING, _UPPER, is_guess=True)  # reading a token
        self._later = Quantile(0.0, 0.5, is_guess=True)  # all further levels of a proposal together
        self._is_cold = True

    @property
    def is_known(self) -> bool:
        """Whether a proposal was ever timed."""
        return not self._is_cold

    def as_json(self) -> dict[str, float]:
        """What to keep for another process: tokens and seconds."""
        return {name: quantity.value for name, quantity in self._kept().items()}

    def restore(self, kept: Any) -> bool:
        """Take up what another process kept; False, and nothing is changed, if that is nothing of the kind."""
        quantities = self._kept()
        values = [kept.get(name) for name in quantities] if isinstance(kept, Mapping) else []
        seconds = [value for value in values if isinstance(value, float) and 0.0 <= value < math.inf]
        if len(seconds) < len(quantities):
            return False
        for quantity, value in zip(quantities.values(), seconds, strict=True):
            if value > 0.0:  # else it was never seen
                quantity.restart(value)
        self._is_cold = False
        return True

    def _kept(self) -> dict[str, Mean | Quantile]:
        return {
            "tokens": self.expected_tokens,
            "first": self._first,
            "reading": self._token,
            "level": self.next_level,
            "later": self._later,
        }

    @property
    def usual_seconds(self) -> float:
        """What a proposal takes, as deep as it usually is, but for long reading."""
        return self._first.value + self._later.value

    def reading_seconds(self, num_unread: int) -> float:
        """What reading takes that a proposal one level deep does not."""
        return self._token.value * num_unread if num_unread >= _LONG else 0.0

    def first_seconds(self, num_unread: int) -> float:
        """What a proposal one level deep takes."""
        return self._first.value + self.reading_seconds(num_unread)

    def learn_cost(self, num_unread: int, depth: int, seconds: float) -> None:
        """Take in the seconds of a proposal and how deep it was; an empty one took as long as one level.

        The very first one is left out: what is prepared at first use makes it slower than any other.
        """
        if self._is_cold:
            self._is_cold = False
            return
        levels = max(depth - 1, 0)
        if num_unread >= _LONG:
            rest = seconds - self._first.value - levels * self.next_level.value
            self._token.learn(max(rest, 0.1 * seconds) / num_unread)
        elif levels == 0 or seconds <= self._first.value:
            self._first.learn(seconds)
        else:
            self._later.learn(seconds - self._first.value)
            self.next_level.learn((seconds - self._first.value) / levels)


class DrafterState:
    """One drafter in one request: what it brings there, and when it was last asked."""

    __slots__ = ("_expected_tokens", "_own_tokens", "asked_at", "num_read", "shared")

    def __init__(self, shared: DrafterStatistics) -> None:
        self.shared = shared
        prior = shared.expected_tokens.value
        self._expected_tokens, self._own_tokens = Mean(prior, 0.5, _REQUEST_KEEP), Mean(prior, 0.5, _REQUEST_KEEP)
        self.asked_at = 0  # output tokens when it was asked last
        self.num_read = 0  # tokens of the request that it has read

    @property
    def expected_tokens(self) -> float:
        """Tokens that its proposal may be expected to bring."""
        return self._expected_tokens.value

    @property
    def calibration(self) -> float:
        """Tokens that may be expected where the drafter's own scores promise one."""
        return max(self._expected_tokens.total, _LEAST) / max(self._own_tokens.total, _LEAST)

    def learn(self, tokens: float, own: float) -> None:
        """Take in what a proposal was expected to bring, by calibrated probabilities and by the drafter's own."""
        self._expected_tokens.learn(tokens)
        self._own_tokens.learn(own)
        self.shared.expected_tokens.learn(tokens)


class RequestState:
    """One request's success counts, drafters and present rate.

    Args:
        request: the request.
        plain_step: seconds.
        counts: the shared success counts.
        statistics: what is known of drafters, by name; makes what it does not have.
    """

    __slots__ = (
        "_drafters",
        "_seconds",
        "_statistics",
        "_tokens",
        "counts",
        "max_nodes",
        "next_ask",
        "price",
        "request",
        "stops",
    )

    def __init__(
        self,
        request: Request,
        plain_step: float,
        counts: SuccessCounts,
        statistics: Mapping[str, DrafterStatistics],
    ) -> None:
        self.request = request
        self.counts = SuccessCounts(REQUEST_MEMORY, counts)
        self.next_ask = 0  # output tokens from which a drafter may be worth asking
        self.price = 0.0  # seconds that this takes, rows for its drafts included
        self.max_nodes = 16  # draft nodes to ask for: more than were of use lately
        self.stops: Counter[str] = Counter()  # why drafting went no further -> steps
        self._statistics = statistics
        self._drafters: dict[int, DrafterState] = {}  # by id: names may be alike
        self._seconds, self._tokens = Mean(plain_step, 8.0, _RATE_KEEP), Mean(1.0, 8.0, _RATE_KEEP)  # of a step

    @property
    def seconds_per_token(self) -> float:
        """At the present rate: what a token saves."""
        return self._seconds.value / self._tokens.value

    def may_ask(self, allowance: float) -> bool:
        """Whether a drafter may be worth asking, and an allowance of so many seconds covers the most promising one."""
        request = self.request
        return bool(request.drafters) and request.num_output_tokens >= self.next_ask and self.price <= allowance

    def drafter(self, drafter: Drafter) -> DrafterState:
        """How a drafter has done for this request."""
        known = self._drafters.get(id(drafter))
        if known is None:
            known = self._drafters[id(drafter)] = DrafterState(self._statistics[drafter.name])
        return known

    def expected_saving(self, drafter: Drafter) -> float:
        """Seconds that asking a drafter may be expected to save."""
        state = self.drafter(drafter)
        return state.expected_tokens * self.seconds_per_token - state.shared.usual_seconds

    def first_seconds(self, drafter: Drafter) -> float:
        """Seconds that a drafter's proposal one level deep takes, with what it has not read yet."""
        state = self.drafter(drafter)
        return state.shared.first_seconds(len(self.request.tokens) - state.num_read)

    def due(self, drafter: DrafterState, new_tokens: float, probe_seconds: float, entry_seconds: float = 0.0) -> int:
        """The output length from which to ask a drafter: 0, at once, if that pays; else seldom enough.

        Args:
            drafter: one of the request's, as it has done here.
            new_tokens: that it may be expected to bring, beyond what others have proposed.
            probe_seconds: that asking it may cost for each token although it does not pay.
            entry_seconds: that a step costs more since anybody is asked: pacing it, and a row to try a draft in.
        """
        usual = drafter.shared.usual_seconds + entry_seconds
        reading = drafter.shared.reading_seconds(len(self.request.tokens) - drafter.num_read)
        # What is read serves all proposals still to come; a quarter of those, since nobody knows.
        proposals = max(self.request.num_remaining / (1.0 + drafter.expected_tokens) / 4.0, 1.0)
        if new_tokens * self.seconds_per_token > usual + reading / proposals:
            return 0
        return drafter.asked_at + (int((usual + reading) / probe_seconds) if probe_seconds > 0.0 else _NEVER)

    def learn_rate(self, seconds: float, num_tokens: int) -> None:
        """Take in what a step took and emitted."""
        self._seconds.learn(seconds)
        self._tokens.learn(num_tokens)

    def learn_max_nodes(self, num_drafts: int, num_accepted: int) -> None:
        """Ask for twice as many nodes as were accepted: proposals take time in proportion to their nodes."""
        wanted = 2 * num_accepted + _MIN_NODES
        self.max_nodes = max(wanted, (self.max_nodes + wanted) // 2 if num_drafts else self.max_nodes)
