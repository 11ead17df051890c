"""Drafts from the second thoughts of the target: what it nearly said instead of the pending token it may say next.

LogitSpec (arXiv 2507.01449): the runners-up of the logits that chose the pending token are guesses of the token after
it, and each guess is prolonged with what followed it in the text. Departures: the pending token and the guess are
looked up together before the guess alone; only the request's own text is searched; the chains share one budget by
their chances. There are guesses only right after a step in which this drafter was asked.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.sampling.topk import likeliest

# How a guess was found in the text: not at all, alone, or after the pending token.
NOWHERE, ALONE, PAIRED = range(3)
# What that is worth, measured with the bundled model over its prompts; the pacer goes on from there.
RANKS = (1, 3)  # ranks, from 0, at which the next column and the next bucket begin
HIT = ((0.02, 0.012, 0.005), (0.05, 0.03, 0.02), (0.5, 0.45, 0.4))  # chance of a guess; paired ones share theirs
GOES_ON = (0.0, 0.4, 0.7)  # chance of each further token, by how its guess was found
DEPTHS = (3, 5)  # depths at which the next bucket of further tokens begins

# (-chance from the root, depth, rank of the guess, parent, token, score, bucket, place in the text after it, how found)
_Entry = tuple[float, int, int, int, int, float, int, int, int]


@register("logitspec")
@dataclass(eq=False)
class LogitSpecDrafter(BaseDrafter):
    """Prolongs what the target nearly said. Memory: about 200 bytes for each token of a running request's text."""

    reads_logits: ClassVar[bool] = True
    guesses: int = option(8, ge=1, le=16, help="runners-up taken as guesses of the next token")
    length: int = option(16, ge=0, help="tokens of the text drafted after a guess")
    min_chance: float = option(0.01, ge=1e-6, le=1.0, help="do not propose nodes believed reached less often than this")
    _texts: dict[int, _Text] = field(default_factory=dict, init=False)

    @classmethod
    def is_automatic(cls, environment: Environment) -> bool:
        """See `BaseDrafter`: never: it seldom adds to the other drafters."""
        return False

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self._texts[request.id] = _Text()
        return True

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """The guesses, each with what followed it in the text, likeliest first."""
        text, builder = self._texts[request.id], TreeBuilder(self.name)
        heap = text.entries(request.tokens)
        heapq.heapify(heap)
        while heap and len(builder) < limits.max_nodes:
            negative, depth, rank, parent, token, score, bucket, place, find = heapq.heappop(heap)
            if -negative < self.min_chance:
                break
            node = builder.add(parent, token, score, bucket)
            if place < len(request.tokens) and depth <= min(self.length, limits.max_depth - 1):
                further, score = request.tokens[place], GOES_ON[find]
                bucket = _bucket_of_further(find, depth + 1)
                heapq.heappush(heap, (negative * score, depth + 1, rank, node, further, score, bucket, place + 1, find))
        return builder.build()

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`: keeps the runners-up of the row that chose the token now pending."""
        row = outcome.path[-1] + 1 if outcome.path else 0
        tokens, _ = likeliest(outcome.logits, [row], self.guesses + 1)
        said = outcome.request.tokens
        guesses = [token for token in tokens[0].tolist() if token != said[-1]]
        self._texts[outcome.request.id].guess(guesses[: self.guesses], len(said))

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._texts.pop(request.id, None)

    def close(self) -> None:
        """See `Drafter`."""
        self._texts.clear()


def _bucket_of_further(find: int, depth: int) -> int:
    return len(HIT) * len(HIT[0]) + find * (len(DEPTHS) + 1) + bisect(DEPTHS, depth)


class _Text:
    """Where tokens and pairs of them last stood in a request's text, and guesses of what comes next."""

    def __init__(self) -> None:
        self._guesses: list[int] = []  # likeliest first
        self._guessed_at = -1  # length of the text that they continue
        self._after: dict[int, int] = {}  # token -> place after it
        self._after_pair: dict[tuple[int, int], int] = {}
        self._num_read = 0

    def guess(self, tokens: list[int], length: int) -> None:
        """Take up guesses of what comes next in a text of that length."""
        self._guesses, self._guessed_at = tokens, length

    def entries(self, tokens: Sequence[int]) -> list[_Entry]:
        """The guesses that continue exactly these tokens, each as a root of a chain; else none."""
        if self._guessed_at != len(tokens):
            return []
        self._read(tokens)
        finds = [self._find(tokens[-1], guess) for guess in self._guesses]
        num_paired = sum(find == PAIRED for find, _ in finds)
        entries = []
        for rank, (guess, (find, place)) in enumerate(zip(self._guesses, finds, strict=True)):
            column = bisect(RANKS, rank)
            score = HIT[find][column] / (num_paired if find == PAIRED else 1)
            entries.append((-score, 1, rank, -1, guess, score, find * len(HIT[0]) + column, place, find))
        return entries

    def _find(self, pending: int, guess: int) -> tuple[int, int]:
        """How a guess is found in the text, and the place after it; the text's end if it is not."""
        place = self._after_pair.get((pending, guess))
        if place is not None:
            return PAIRED, place
        place = self._after.get(guess)
        return (NOWHERE, self._num_read) if place is None else (ALONE, place)

    def _read(self, tokens: Sequence[int]) -> None:
        start = max(self._num_read - 1, 0)  # the token before the new ones, for the first new pair
        new = tokens[start:]
        self._after.update(zip(new, range(start + 1, len(tokens) + 1), strict=True))
        self._after_pair.update(zip(itertools.pairwise(new), range(start + 2, len(tokens) + 1), strict=False))
        self._num_read = len(tokens)
