"""Drafts by replaying what followed the current suffix earlier in the same request.

A suffix automaton over the prompt and the output (Blumer et al. 1985) knows the longest suffix that has occurred
before and every token that followed it; counts along its transitions give SuffixDecoding's frequency scores
(arXiv 2411.04975), and shorter suffixes are backed off to as in PPM. Unlike prompt lookup, the draft branches
where the history branched.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from paceline.drafters.base import BaseDrafter, option, register
from paceline.request import Request
from paceline.tree import MAX_DEPTH, TreeBuilder
from paceline.types import DraftTree, StepOutcome


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


@register("suffix")
@dataclass(eq=False)
class SuffixDrafter(BaseDrafter):
    """Replays the request's own text: copies, edits, code, JSON, stories that repeat themselves."""

    min_match: int = option(2, ge=1, help="shortest repeated suffix to draft from, tokens")
    min_score: float = option(0.1, ge=0.0, le=1.0, help="do not propose nodes believed less likely than this")
    max_tokens: int = option(65_536, ge=1024, help="text remembered per request; the older half is dropped beyond it")
    _texts: dict[int, _Text] = field(default_factory=dict, init=False)

    def start(self, request: Request) -> None:
        """See `Drafter`."""
        self._texts[request.id] = _Text(self.max_tokens)
        self._texts[request.id].read(request.tokens)

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`."""
        self._texts[outcome.request.id].read(token.id for token in outcome.tokens)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._texts.pop(request.id, None)

    def propose_one(self, request: Request, budget: int) -> DraftTree:
        """The likeliest continuations of the longest repeated suffixes, best first."""
        automaton = self._texts[request.id].automaton
        builder = TreeBuilder(self.name)
        # (-score, tie-break, parent node, depth, belief in this suffix, token, state after it)
        heap: list[tuple[float, int, int, int, float, int, int]] = []
        for state, mass, belief in self._suffixes(automaton):
            _push(heap, automaton, state, (-1, 1, belief), mass)
        while heap and len(builder) < budget:
            negative, _, parent, depth, belief, token, state = heapq.heappop(heap)
            if -negative < self.min_score:
                break
            size = len(builder)
            node = builder.add(parent, token, -negative)
            if node == size and depth < MAX_DEPTH:  # a node found twice keeps its better continuation
                _push(heap, automaton, state, (node, depth + 1, belief), -negative)
        return builder.build()

    def _suffixes(self, automaton: SuffixAutomaton) -> Iterable[tuple[int, float, float]]:
        """(state, probability mass, belief) of the longest repeated suffix and of shorter ones."""
        state, mass = automaton.match, 1.0
        while state > 0 and automaton.length[state] >= self.min_match and mass >= self.min_score:
            belief = 1.0 - 1.0 / (1 + automaton.length[state])
            yield state, mass, belief
            mass *= 1.0 - belief
            state = automaton.link[state]


def _push(
    heap: list[tuple[float, int, int, int, float, int, int]],
    automaton: SuffixAutomaton,
    state: int,
    place: tuple[int, int, float],
    mass: float,
) -> None:
    parent, depth, belief = place
    for token, after, share in automaton.followers(state):
        heapq.heappush(heap, (-mass * belief * share, len(heap), parent, depth, belief, token, after))


class _Text:
    """One request's text in an automaton of bounded size."""

    def __init__(self, max_tokens: int) -> None:
        self.automaton = SuffixAutomaton()
        self._max_tokens = max_tokens
        self._tokens: list[int] = []

    def read(self, tokens: Iterable[int]) -> None:
        """Append tokens; when there are too many, start again from the newer half."""
        for token in tokens:
            self._tokens.append(token)
            self.automaton.extend(token)
            if len(self._tokens) > self._max_tokens:
                self._tokens = self._tokens[self._max_tokens // 2 :]
                self.automaton = SuffixAutomaton()
                for kept in self._tokens:
                    self.automaton.extend(kept)
