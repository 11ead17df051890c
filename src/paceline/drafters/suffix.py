"""Drafts by replaying what followed the current suffix earlier in the same request.

A suffix automaton over the prompt and the output (Blumer et al. 1985) knows the longest suffix that has occurred
before and every token that followed it; counts along its transitions give SuffixDecoding's frequency scores
(arXiv 2411.04975), and shorter suffixes are backed off to as in PPM. Unlike prompt lookup, the draft branches
where the history branched.
"""

from __future__ import annotations

import heapq
import sys
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from paceline.drafters.base import BaseDrafter, option, register
from paceline.request import Request
from paceline.tree import MAX_DEPTH, TreeBuilder
from paceline.types import DraftTree


class SuffixAutomaton:
    """Every substring of a growing text, with how often each token followed it. O(1) amortised per token.

    State 0 is the empty string. The link of the last state is the longest suffix that occurred before.
    """

    # Counts are kept for this many of the longest repeated suffixes: enough for back-off, and O(1).
    COUNTED = 8

    def __init__(self) -> None:
        self.next: list[dict[int, int]] = [{}]
        self.counts: list[dict[int, int]] = [{}]
        self.link: list[int] = [-1]
        self.length: list[int] = [0]
        self.last = 0

    @property
    def match(self) -> int:
        """The state of the longest suffix that has occurred before; 0 if none has."""
        return max(self.link[self.last], 0)

    def extend(self, token: int) -> None:
        """Append a token to the text."""
        self._count(token)
        new = self._state(self.length[self.last] + 1, {}, {}, 0)
        state = self.last
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = new
            state = self.link[state]
        if state >= 0:
            self.link[new] = self._whole(state, token)
        self.last = new

    def followers(self, state: int) -> list[tuple[int, int, float]]:
        """(token, state after it, share) of what followed a state, in the order first seen."""
        counts = self.counts[state]
        seen = [(token, after, counts.get(token, 1)) for token, after in self.next[state].items()]
        total = sum(count for _, _, count in seen)
        return [(token, after, count / total) for token, after, count in seen]

    def num_bytes(self) -> int:
        """Memory held, measured object by object; O(states)."""
        tables = [*self.next, *self.counts]
        return sum(map(sys.getsizeof, tables)) + sum(map(sys.getsizeof, (self.next, self.link, self.length)))

    def _count(self, token: int) -> None:
        state = self.match
        for _ in range(self.COUNTED):
            if state <= 0:
                return
            counts = self.counts[state]
            counts[token] = counts.get(token, int(token in self.next[state])) + 1
            state = self.link[state]

    def _whole(self, state: int, token: int) -> int:
        """The state after `token` that holds exactly the strings ending here; splits one if need be."""
        after = self.next[state][token]
        if self.length[after] == self.length[state] + 1:
            return after
        clone = self._state(self.length[state] + 1, dict(self.next[after]), dict(self.counts[after]), self.link[after])
        while state >= 0 and self.next[state].get(token) == after:
            self.next[state][token] = clone
            state = self.link[state]
        self.link[after] = clone
        return clone

    def _state(self, length: int, following: dict[int, int], counts: dict[int, int], link: int) -> int:
        self.next.append(following)
        self.counts.append(counts)
        self.link.append(link)
        self.length.append(length)
        return len(self.next) - 1


# A node's sign: how many tokens agree before it, and how large a share of what followed them it is.
_MATCHES = (2, 3, 5, 9, 17, 33)  # agreement at which the next sign begins
_SHARES = (0.3, 0.6, 0.95)
NUM_SIGNS = (len(_MATCHES) + 1) * (len(_SHARES) + 1)

# (-chance from the root, tie-break, parent node, depth, agreement before it, token, score, sign, state after it)
_Entry = tuple[float, int, int, int, int, int, float, int, int]


@register("suffix")
@dataclass(eq=False)
class SuffixDrafter(BaseDrafter):
    """Replays the request's own text: copies, edits, code, JSON, stories that repeat themselves."""

    min_match: int = option(2, ge=1, help="shortest repeated suffix to draft from, tokens")
    min_score: float = option(0.1, ge=0.0, le=1.0, help="do not propose nodes less likely than this to be reached")
    max_tokens: int = option(65_536, ge=1024, help="text remembered per request; the older half is dropped beyond it")
    _texts: dict[int, _Text] = field(default_factory=dict, init=False)

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self._texts[request.id] = _Text(self.max_tokens)
        return True

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._texts.pop(request.id, None)

    def propose_one(self, request: Request, budget: int) -> DraftTree:
        """The likeliest continuations of the longest repeated suffixes, best first."""
        text, builder = self._texts[request.id], TreeBuilder(self.name)
        text.read(request.tokens)
        heap: list[_Entry] = []
        for state, mass in self._suffixes(text.automaton):
            _push(heap, text.automaton, state, (-1, 0, text.automaton.length[state]), (mass, mass))
        while heap and len(builder) < budget:
            negative, _, parent, depth, agreement, token, score, sign, state = heapq.heappop(heap)
            if -negative < self.min_score:
                break
            size = len(builder)
            node = builder.add(parent, token, score, sign)
            if node == size and depth < MAX_DEPTH:  # a node found twice keeps its better continuation
                _push(heap, text.automaton, state, (node, depth, agreement), (-negative, 1.0))
        return builder.build()

    def _suffixes(self, automaton: SuffixAutomaton) -> Iterable[tuple[int, float]]:
        """The longest repeated suffix and shorter ones, with the chance that no longer one was right."""
        state, mass = automaton.match, 1.0
        while state > 0 and automaton.length[state] >= self.min_match and mass >= self.min_score:
            yield state, mass
            mass *= 1.0 - _belief(automaton.length[state])
            state = automaton.link[state]


def _belief(agreement: int) -> float:
    """The chance that what followed so many equal tokens follows again, before the pacer knows better."""
    return 1.0 - 1.0 / (1 + agreement)


def _push(
    heap: list[_Entry],
    automaton: SuffixAutomaton,
    state: int,
    above: tuple[int, int, int],
    chances: tuple[float, float],
) -> None:
    """Offer what followed a state under (node, depth, agreement); chances: to be there, and of the state itself."""
    parent, depth, agreement = above
    reach, mass = chances
    belief = mass * _belief(agreement)
    for token, after, share in automaton.followers(state):
        score = belief * share
        sign = bisect(_MATCHES, agreement) * (len(_SHARES) + 1) + bisect(_SHARES, share)
        chance = score if parent < 0 else reach * score
        heapq.heappush(heap, (-chance, len(heap), parent, depth + 1, agreement + 1, token, score, sign, after))


class _Text:
    """One request's text in an automaton of bounded size."""

    def __init__(self, max_tokens: int) -> None:
        self.automaton = SuffixAutomaton()
        self._max_tokens = max_tokens
        self._tokens: list[int] = []
        self._num_read = 0

    def read(self, text: Sequence[int]) -> None:
        """Take in what is new in a text; when there is too much of it, start again from the newer half."""
        for token in text[self._num_read :]:
            self._tokens.append(token)
            self.automaton.extend(token)
            if len(self._tokens) > self._max_tokens:
                self._tokens = self._tokens[self._max_tokens // 2 :]
                self.automaton = SuffixAutomaton()
                for kept in self._tokens:
                    self.automaton.extend(kept)
        self._num_read = len(text)
