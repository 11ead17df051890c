"""Drafts from what the target thought the last times: its likeliest continuations of each token, kept in a table.

Token Recycling (Luo et al., arXiv 2408.08696): verification computes logits for accepted and for rejected nodes
alike; the best few of each row replace what was known of the row's token, and chains of such look-ups make a tree.
Departures: a row is kept for the last two tokens as well, and believed before that of the last alone; the text's own
last follower, of either, counts too, and is all there is for a prompt, whose logits are never computed; the tree is
grown by chance, not from a template.
"""

from __future__ import annotations

import heapq
from bisect import bisect
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.sampling.topk import likeliest

Child = tuple[float, int, int]  # score, token, bucket

PAIRS = 16_381  # slots for rows of two tokens, a prime to spread them; wanted for another pair, one is overwritten

# What evidence is worth, measured with the bundled model over its prompts; the pacer goes on from there.
# Indexed by whether it comes from the last two tokens (1) or from the last alone (0).
THOUGHT = (0.6, 0.69)  # times the chance the target gave
FOLLOWED = (0.1, 0.3)  # plus, for the token that followed last
CHANCES = (1e-9, 0.05, 0.15, 0.35, 0.7, 0.9)  # bounds between buckets
_NUM_BINS = len(CHANCES) + 1


@register("recycle")
@dataclass(eq=False)
class RecycleDrafter(BaseDrafter):
    """Recycles the logits that verification leaves over. It draws on all texts of a tenant, and on no one else's.

    Memory, per tenant: 8 * width + 12 bytes for each token of the vocabulary and each of `PAIRS` slots: 1.6 MB for a
    vocabulary of 4096 and 12.8 MB for one of 151,936, at a width of 8.
    """

    width: int = option(8, ge=1, le=64, help="continuations kept of each token")
    rows: int = option(8, ge=1, help="rows of logits learnt from in one step, the accepted ones first")
    min_chance: float = option(0.01, ge=1e-6, le=1.0, help="do not propose nodes believed reached less often than this")
    tenants: int = option(8, ge=1, help="tables kept; the tenant that was served longest ago is forgotten")
    _tables: OrderedDict[str, _Table] = field(default_factory=OrderedDict, init=False)
    _read: dict[int, int] = field(default_factory=dict, init=False)  # request id -> its tokens in the table
    _vocab_size: int = field(default=0, init=False)

    def attach(self, environment: Environment) -> None:
        """See `Drafter`."""
        self._vocab_size = environment.vocab_size

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self._read[request.id] = 0
        return True

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """The continuations with the highest products of scores, best first."""
        table = self._table(request)
        table.read(request.tokens, self._read[request.id])
        self._read[request.id] = len(request.tokens) - 1  # what follows the pending token is not known yet
        return self._grow(table, (_before(request.tokens, len(request.tokens) - 1), request.tokens[-1]), limits)

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`: the rows of the path, then of rejected nodes, as far as `rows` goes."""
        tree, text = outcome.tree, outcome.request.tokens
        place = len(text) - len(outcome.tokens) - 1
        pending = (_before(text, place), text[place])
        on_path = {-1, *outcome.path}
        nodes = [-1, *outcome.path, *(node for node in range(len(tree)) if node not in on_path)][: self.rows]
        nodes.reverse()  # a token that has several rows keeps the last
        tokens, chances = likeliest(outcome.logits, [node + 1 for node in nodes], self.width)
        self._table(outcome.request).learn([_pair(tree, node, pending) for node in nodes], tokens, chances)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._read.pop(request.id, None)

    def close(self) -> None:
        """See `Drafter`."""
        self._tables.clear()

    def _table(self, request: Request) -> _Table:
        tenant = request.hints.tenant
        if tenant not in self._tables:
            self._tables[tenant] = _Table(self._vocab_size, self.width)
            if len(self._tables) > self.tenants:
                self._tables.popitem(last=False)
        self._tables.move_to_end(tenant)
        return self._tables[tenant]

    def _grow(self, table: _Table, root: tuple[int, int], limits: DraftLimits) -> DraftTree:
        builder = TreeBuilder(self.name)
        depths: list[int] = []
        # (-chance from the root, tie-break, parent node, its token, its chance, its children, which of them)
        heap: list[tuple[float, int, int, int, float, list[Child], int]] = []
        _push(heap, (-1, root[1], 1.0), table.children(*root, self.min_chance), 0)
        while heap and len(builder) < limits.max_nodes:
            negative, _, parent, above, mass, children, place = heapq.heappop(heap)
            if -negative < self.min_chance:
                break
            score, token, bucket = children[place]
            node = builder.add(parent, token, score, bucket)
            _push(heap, (parent, above, mass), children, place + 1)
            depths.append(depths[parent] + 1 if parent >= 0 else 1)
            if depths[node] < limits.max_depth:
                _push(heap, (node, token, -negative), table.children(above, token, self.min_chance / -negative), 0)
        return builder.build()


def _push(
    heap: list[tuple[float, int, int, int, float, list[Child], int]],
    parent: tuple[int, int, float],
    children: list[Child],
    place: int,
) -> None:
    """Only the best child that is not in the tree yet stands in the heap, for each parent."""
    if place < len(children):
        # Of equals the node of the earlier parent comes first; a parent has one entry, so no list is compared.
        heapq.heappush(heap, (-parent[2] * children[place][0], parent[0], *parent, children, place))


def _before(tokens: Sequence[int], place: int) -> int:
    """The token before `tokens[place]`; of the first token, itself."""
    return tokens[max(place - 1, 0)]


def _pair(tree: DraftTree, node: int, pending: tuple[int, int]) -> tuple[int, int]:
    """The last two tokens at a node; `pending` are those at the pending token, node -1."""
    if node < 0:
        return pending
    parent = tree.parents[node]
    return pending[1] if parent < 0 else tree.tokens[parent], tree.tokens[node]


class _Table:
    """What one tenant's texts have taught: rows of one token, then rows of two, which know whose they are."""

    def __init__(self, vocab_size: int, width: int) -> None:
        self._size = vocab_size
        width = min(width, vocab_size)
        self._tokens: NDArray[np.int32] = np.zeros((vocab_size + PAIRS, width), np.int32)
        self._chances: NDArray[np.float32] = np.zeros((vocab_size + PAIRS, width), np.float32)
        self._followed: NDArray[np.int32] = np.full(vocab_size + PAIRS, -1, np.int32)
        self._pairs: NDArray[np.int64] = np.full(vocab_size + PAIRS, -1, np.int64)  # of slots alone

    def read(self, text: Sequence[int], start: int) -> None:
        """Learn what follows what from `text[start]` on."""
        new = np.array(text[start:], np.int64)
        if new.size > 1:
            before = np.concatenate(([_before(text, start)], new[:-2]))
            self._followed[new[:-1]] = new[1:]
            self._followed[self._claim(before, new[:-1])] = new[1:]

    def learn(
        self, pairs: Sequence[tuple[int, int]], tokens: NDArray[np.integer], chances: NDArray[np.float32]
    ) -> None:
        """Keep the likeliest tokens (R, width) after R pairs, and their chances; of a token's rows the last stays."""
        before, last = np.array(pairs, np.int64).T
        for rows in (last, self._claim(before, last)):
            self._tokens[rows] = tokens
            self._chances[rows] = chances

    def children(self, before: int, last: int, min_score: float) -> list[Child]:
        """What may follow two tokens, best first, with scores of `least` and more; at most 1 together."""
        pair = before * self._size + last
        slot = self._size + pair % PAIRS
        is_known = bool(self._pairs[slot] == pair)
        is_thought = is_known and bool(self._chances[slot, 0] > 0)
        followed, of_pair = int(self._followed[slot]) if is_known else -1, True
        if followed < 0:
            followed, of_pair = int(self._followed[last]), False
        return self._weigh(slot if is_thought else last, is_thought, followed, of_pair, min_score)

    def _weigh(self, row: int, is_thought: bool, followed: int, of_pair: bool, min_score: float) -> list[Child]:
        """The tokens of a row and the one that followed, with their scores and buckets; the flags are of evidence."""
        children, belief = [], 0.0
        for token, chance in zip(self._tokens[row].tolist(), self._chances[row].tolist(), strict=True):
            score = THOUGHT[is_thought] * chance
            if token == followed:
                belief = chance
            elif score >= min_score:
                children.append((score, token, int(is_thought) * _NUM_BINS + bisect(CHANCES, chance)))
        score = FOLLOWED[of_pair] + THOUGHT[is_thought] * belief
        if followed >= 0 and score >= min_score:
            children.append((score, followed, (2 + of_pair) * _NUM_BINS + bisect(CHANCES, belief)))
        return sorted(children, reverse=True)

    def _claim(self, before: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slots of pairs, emptied where they were another's."""
        pairs = before * self._size + last
        slots = self._size + pairs % PAIRS
        stale = slots[self._pairs[slots] != pairs]
        self._chances[stale, 0] = 0.0
        self._followed[stale] = -1
        self._pairs[slots] = pairs
        return slots
