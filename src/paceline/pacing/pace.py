"""What the pacer knows: of one request (`Pace`), and of the drafters from all requests (`Experience`)."""

from __future__ import annotations

from collections import Counter

from paceline.engine.request import Drafter, Request
from paceline.pacing.beliefs import SHARED_MEMORY, Beliefs, Counts
from paceline.pacing.growth import Foresight, Growth
from paceline.pacing.guard import Account
from paceline.pacing.trackers import Mean
from paceline.pacing.worth import DrafterCost, Habit, fresh_worth

_RATE_KEEP = 1.0 - 1.0 / 16  # steps over which the present rate of tokens is averaged
_FEWEST_NODES = 8  # draft nodes to ask for, where none was accepted last
_NEVER = 2**30  # output tokens


class Experience:
    """Success counts, costs and worth of drafters, by name: they outlive requests.

    Args:
        guess: seconds that asking a drafter takes, before anybody has.
    """

    def __init__(self, guess: float) -> None:
        self.counts = Counts(SHARED_MEMORY)
        self._guess = guess
        self._drafters: dict[str, tuple[DrafterCost, Mean]] = {}

    def knows(self, drafter: Drafter) -> bool:
        """Whether it has been met or asked before."""
        return drafter.name in self._drafters

    def of(self, drafter: Drafter) -> DrafterCost:
        """What a drafter costs."""
        return self._known(drafter)[0]

    def worth_of(self, drafter: Drafter) -> Mean:
        """The tokens that asking it has been worth."""
        return self._known(drafter)[1]

    def _known(self, drafter: Drafter) -> tuple[DrafterCost, Mean]:
        known = self._drafters.get(drafter.name)
        if known is None:
            known = self._drafters[drafter.name] = (DrafterCost(self._guess), fresh_worth())
        return known


class Pace:
    """One request's account, beliefs and present rate."""

    __slots__ = (
        "_experience",
        "_habits",
        "_seconds",
        "_tokens",
        "account",
        "beliefs",
        "growth",
        "reach",
        "stops",
        "wake",
    )

    def __init__(self, experience: Experience, account: Account, plain_step: float) -> None:
        self.account = account
        self.beliefs = Beliefs(experience.counts)
        self.growth: Growth | None = None  # of this step
        self.wake = 0  # output tokens from which a drafter may be worth asking
        self.reach = 16  # draft nodes to ask for: more than were of use lately
        self.stops: Counter[str] = Counter()  # why drafting went no further -> steps
        self._experience = experience
        self._habits: dict[int, tuple[Habit, DrafterCost]] = {}
        self._seconds, self._tokens = Mean(plain_step, 8.0, _RATE_KEEP), Mean(1.0, 8.0, _RATE_KEEP)  # of a step

    @property
    def seconds_per_token(self) -> float:
        """At the present rate: what a token saves."""
        return self._seconds.value / self._tokens.value

    def habit(self, drafter: Drafter) -> tuple[Habit, DrafterCost]:
        """How a drafter has done for this request, and what it costs."""
        known = self._habits.get(id(drafter))
        if known is None:
            experience = self._experience
            known = self._habits[id(drafter)] = (Habit(experience.worth_of(drafter)), experience.of(drafter))
        return known

    def promise(self, drafter: Drafter) -> float:
        """Seconds that asking a drafter may be expected to save: who promises most is asked first."""
        habit, cost = self.habit(drafter)
        return habit.worth * self.seconds_per_token - cost.usual

    def due(self, request: Request, drafter: Drafter, foreseen: Foresight, share: float) -> int:
        """The output length from which to ask a drafter: at once if that pays, else seldom enough to cost a share.

        Args:
            request: the request.
            drafter: one of its drafters.
            foreseen: what others have foreseen already.
            share: seconds per token that asking it may cost although it does not pay.
        """
        habit, cost = self.habit(drafter)
        reading = cost.reading(len(request.tokens) - habit.read)
        # What is read serves all proposals still to come; a quarter of those, since nobody knows.
        proposals = max(request.num_remaining / (1.0 + habit.worth) / 4.0, 1.0)
        if foreseen.left_of(habit.worth) * self.seconds_per_token > cost.usual + reading / proposals:
            return 0
        return habit.asked_at + (int((cost.usual + reading) / share) if share > 0.0 else _NEVER)

    def affordable(self, request: Request, price: float, earning: float) -> int:
        """The output length from which the balance covers `price`, if it grows by `earning` per token until then."""
        missing = price - self.account.balance
        if missing <= 0.0:
            return 0
        return request.num_output_tokens + 1 + (int(missing / earning) if earning > 0.0 else _NEVER)

    def learn_rate(self, seconds: float, num_tokens: int) -> None:
        """Take in what a step took and emitted."""
        self._seconds.learn(seconds)
        self._tokens.learn(num_tokens)

    def learn_reach(self, num_drafts: int, num_accepted: int) -> None:
        """Look twice as far as drafts were accepted: proposals take time in proportion to their nodes."""
        wanted = 2 * num_accepted + _FEWEST_NODES
        self.reach = max(wanted, (self.reach + wanted) // 2 if num_drafts else self.reach)
