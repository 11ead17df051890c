"""Drafts from what the caller expects the output to be: OpenAI's `prediction`, made robust to edits in the middle.

While the output follows the prediction, what comes next is read off it. After a mismatch the last output tokens are
looked for in the prediction, the longest agreement first and then the place nearest to where it was lost; right
after the mismatch there is no agreement to go by yet, and one token left out, replaced or put in are the guesses.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request
from paceline.engine.tree import MAX_DEPTH, DraftTree, TreeBuilder

FIRM = 8  # tokens of agreement from which a place is followed without looking at others
LONGEST = 32  # agreement is not measured further
NEAR = 8  # places looked at on either side of where the agreement was lost

# What the estimate of a node rests on, by tokens of agreement before it. The first bin is for the guesses without any.
BIN_STARTS = (0, 1, 2, 3, 5, 9, 17, LONGEST + 1)
_BINS = tuple(sum(start <= n for start in BIN_STARTS) - 1 for n in range(LONGEST + MAX_DEPTH + 2))
_SCORES = tuple(0.3 if n == 0 else 1 - 0.6 / (n + 0.5) for n in range(LONGEST + MAX_DEPTH + 2))
OPENING, SECOND = (
    len(BIN_STARTS),
    len(BIN_STARTS) + 1,
)  # buckets from here: the first token; places of lower rank


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the output may stand in the prediction: the index of the next token."""

    next: int
    agreement: int  # tokens before it that the output said too, LONGEST at most


@register("prediction")
@dataclass(eq=False)
class PredictionDrafter(BaseDrafter):
    """Follows the expected output that the caller gives with a request, also around edits."""

    max_places: int = option(3, ge=1, le=8, help="places in the prediction drafted from at once after a mismatch")
    _cursors: dict[int, _Cursor] = field(default_factory=dict, init=False)
    _vocab_size: int | None = field(default=None, init=False)

    def attach(self, environment: Environment) -> None:
        """See `Drafter`."""
        self._vocab_size = environment.vocab_size

    def start(self, request: Request) -> bool:
        """See `Drafter`: only requests with a prediction."""
        return bool(request.hints.prediction)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._cursors.pop(request.id, None)

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """The prediction from where the output stands; branches while that is in doubt."""
        cursor = self._cursors.get(request.id)
        if cursor is None:
            prediction = _within(request.hints.prediction, self._vocab_size)
            cursor = self._cursors[request.id] = _Cursor(prediction, request.num_prompt_tokens)
        cursor.read(request.tokens)
        places = cursor.places(request.tokens, self.max_places)
        if len(places) == 1:
            return _chain(
                cursor.prediction, places[0], min(limits.max_nodes, limits.max_depth), cursor.at_start, self.name
            )
        return _branches(cursor.prediction, places, limits, self.name)


class _Cursor:
    """One request's prediction, and how far into it the output has come."""

    def __init__(self, prediction: tuple[int, ...], num_prompt_tokens: int) -> None:
        self.prediction = prediction
        self._first = self._num_read = num_prompt_tokens
        self._next = 0  # where the output stands, or where the agreement was lost
        self._agreement = 0
        self._lost_at: int | None = None  # tokens that had been read when it was
        self._after: dict[tuple[int, int], list[int]] | None = None  # pair of tokens -> indices of what follows it

    @property
    def at_start(self) -> bool:
        """Whether nothing has been said yet."""
        return self._num_read == self._first

    def read(self, tokens: Sequence[int]) -> None:
        """Catch up with the request's tokens."""
        size = len(tokens) - self._num_read
        if self._lost_at is None and size:
            agreed = self._agreed(tokens, size)
            self._next += agreed
            self._agreement += agreed
            if agreed < size:
                self._lost_at = self._num_read + agreed
        self._num_read = len(tokens)

    def places(self, tokens: Sequence[int], max_places: int) -> list[_Place]:
        """Where the output may stand, the best first: at most `most`, saying different things next."""
        if self._lost_at is None:
            known = self._next < len(self.prediction)
            return [_Place(self._next, min(self._agreement, LONGEST))] if known else []
        found = self._matches(tokens)
        if found and found[0].agreement >= FIRM:
            self._next, self._agreement, self._lost_at = found[0].next, found[0].agreement, None
            return found[:1]
        if len(tokens) - self._lost_at <= 2:
            found += self._guesses(tokens[-1], len(tokens) - self._lost_at)
        different = {self.prediction[place.next]: place for place in reversed(found)}  # the first of each token stays
        return sorted(different.values(), key=found.index)[:max_places]

    def _agreed(self, tokens: Sequence[int], size: int) -> int:
        """How many of the `size` last tokens go on in the prediction."""
        if tuple(tokens[-size:]) == self.prediction[self._next : self._next + size]:
            return size
        pairs = zip(tokens[-size:], self.prediction[self._next :], strict=False)
        differ = (i for i, (said, expected) in enumerate(pairs) if said != expected)
        return next(differ, len(self.prediction) - self._next)

    def _matches(self, tokens: Sequence[int]) -> list[_Place]:
        """Places after the last two output tokens, by agreement and then by nearness."""
        if len(tokens) - self._first < 2:
            return []
        if self._after is None:
            self._after = _index(self.prediction)
        around = _nearest(self._after.get((tokens[-2], tokens[-1]), ()), self._next)
        said = tokens[max(self._first, len(tokens) - LONGEST) :]
        places = [_Place(index, _common_suffix(said, self.prediction, index)) for index in around]
        return sorted(places, key=lambda place: -place.agreement)  # stable: the nearest stay first

    def _guesses(self, last: int, num_lost: int) -> list[_Place]:
        """Right after the mismatch: tokens were left out, replaced or put in."""
        lost = self._next
        left_out = self.prediction[lost : lost + LONGEST]
        found = [_Place(lost + left_out.index(last) + 1, 1)] if last in left_out else []
        found += [_Place(lost + num_lost, 0), _Place(lost, 0)]
        return [place for place in found if place.next < len(self.prediction)]


def _within(prediction: tuple[int, ...], vocab_size: int | None) -> tuple[int, ...]:
    """The prediction as far as the model could say it."""
    if vocab_size is None:
        return prediction
    foreign = (i for i, token in enumerate(prediction) if not 0 <= token < vocab_size)
    return prediction[: next(foreign, len(prediction))]


def _index(prediction: tuple[int, ...]) -> dict[tuple[int, int], list[int]]:
    """For each pair of tokens the indices of what follows it, rising; not the pair at the very end."""
    found: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(itertools.pairwise(prediction[:-1]), start=2):
        found.setdefault(pair, []).append(index)
    return found


def _nearest(indices: Sequence[int], lost: int) -> list[int]:
    """The indices about where the agreement was lost, nearest first; those before it count as twice as far."""
    if len(indices) > 2 * NEAR:
        middle = bisect_left(indices, lost)
        indices = indices[max(middle - NEAR, 0) : middle + NEAR]
    return sorted(indices, key=lambda index: index - lost if index >= lost else 2 * (lost - index))


def _common_suffix(said: Sequence[int], prediction: Sequence[int], end: int) -> int:
    """How many tokens before `end` are those that were said last."""
    before = prediction[max(end - LONGEST, 0) : end]
    pairs = zip(reversed(said), reversed(before), strict=False)
    return next((i for i, (token, expected) in enumerate(pairs) if token != expected), min(len(said), len(before)))


def _chain(prediction: tuple[int, ...], place: _Place, size: int, at_start: bool, source: str) -> DraftTree:
    """The prediction from one place, without branches."""
    tokens = prediction[place.next : place.next + size]
    size, first = len(tokens), place.agreement
    if at_start and size:
        buckets, scores = (OPENING, *_BINS[1:size]), (0.7, *_SCORES[1:size])
    else:
        buckets, scores = _BINS[first : first + size], _SCORES[first : first + size]
    return DraftTree(tokens, tuple(range(-1, size - 1)), scores, (source,) * size, buckets)


def _branches(prediction: tuple[int, ...], places: Sequence[_Place], limits: DraftLimits, source: str) -> DraftTree:
    """The prediction from several places, the likeliest node of all first; what follows them differs."""
    builder = TreeBuilder(source)
    left = 1.0  # of the chance that the first token is from one of the places not yet entered
    heap: list[tuple[float, int, int, int, float]] = []  # (-chance to reach it, rank, parent, depth, score)
    for rank, place in enumerate(places):
        score = left * _SCORES[place.agreement]
        left -= score
        heap.append((-score, rank, -1, 0, score))
    heapq.heapify(heap)
    while heap and len(builder) < limits.max_nodes:
        chance, rank, parent, depth, score = heapq.heappop(heap)
        place = places[rank]
        bucket = _BINS[place.agreement + depth] + (SECOND if rank else 0)
        node = builder.add(parent, prediction[place.next + depth], score, bucket)
        depth += 1
        if depth < limits.max_depth and place.next + depth < len(prediction):
            score = _SCORES[place.agreement + depth]
            heapq.heappush(heap, (chance * score, rank, node, depth, score))
    return builder.build()
