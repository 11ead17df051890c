"""Requests as cases that two heads are compared by: one verdict each, in the order in which they began.

Anchors of one request are alike, so that many of them say little more than one does. Bet on one by one they would make
rich whoever is good at half of the requests and bad at the others. A case is settled in its turn even if others end
sooner: those that a head drafts well for do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

COUNTED = 16  # anchors of a case, the first ones: so a long request does not hold others up
MOST_SAID = 1.0 / 3.0  # of the time saved or lost, by one request
SHADOWED = 25  # of so many anchors one is shadowed, and of a request one at most

_MOST_WAITING = 256  # cases behind one that does not end, which is then given up


class Tokens(NamedTuple):
    """What two heads would have brought on the same text, the target's own tokens included."""

    candidate: float
    incumbent: float

    @property
    def advantage(self) -> float:
        """The share of the time that the candidate saves, from -1 to 1; a loss counts as the other's gain."""
        best = max(self.candidate, self.incumbent)
        return (self.candidate - self.incumbent) / best if best else 0.0

    @property
    def verdict(self) -> float:
        """The same, but no request says more than `MOST_SAID`: what may be lost at once limits what may be staked."""
        return min(max(self.advantage, -MOST_SAID), MOST_SAID)


@dataclass
class Case:
    """What a request has shown so far."""

    number: int  # in the order in which requests began
    stratum: str
    shadowed: int  # which of its anchors is, from 0; there may not be so many
    end: int = 0  # position behind the slots of its last anchor
    num_anchors: int = 0  # handed in
    num_judged: int = 0
    is_finished: bool = False
    tokens: dict[int, Tokens] = field(default_factory=dict)  # by the candidate's number

    def add(self, attempt: int, candidate: float, incumbent: float) -> None:
        """Enter what two heads would have brought at an anchor."""
        former = self.tokens.get(attempt, Tokens(0.0, 0.0))
        self.tokens[attempt] = Tokens(former.candidate + candidate, former.incumbent + incumbent)

    @property
    def is_complete(self) -> bool:
        """Whether nothing more of it counts."""
        return self.num_judged >= COUNTED or (self.is_finished and self.num_judged == self.num_anchors)


class Cases:
    """All that are not settled yet.

    Args:
        seed: of which anchors are shadowed; that is drawn before anything is known of a request.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._open: dict[int, Case] = {}  # by request
        self._queue: dict[int, Case] = {}  # by number, ascending
        self.next_number = 0

    def start(self, request: int, stratum: str) -> None:
        """Take up a request that begins."""
        case = Case(self.next_number, stratum, self._rng.randrange(SHADOWED))
        self._open[request] = self._queue[case.number] = case
        self.next_number += 1

    def of(self, request: int) -> Case | None:
        """The case of a request, until it is finished; None if it was never started."""
        return self._open.get(request)

    def finish(self, request: int) -> None:
        """A request has ended: no anchor of it will come any more."""
        case = self._open.pop(request, None)
        if case is not None:
            case.is_finished = True

    def settled(self) -> Iterator[Case]:
        """Take those out whose turn it is."""
        while self._queue:
            number, case = next(iter(self._queue.items()))
            if not case.is_complete and len(self._queue) <= _MOST_WAITING:
                return
            del self._queue[number]
            if case.is_complete:
                yield case
