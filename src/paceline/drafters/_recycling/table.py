"""What a tenant's texts have taught `recycle`, and the trees that grow from it; csrc/recycle.c does the same."""

from __future__ import annotations

import heapq
from bisect import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from paceline.engine.request import DraftLimits
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


def token_before(tokens: Sequence[int], place: int) -> int:
    """The token before `tokens[place]`; of the first token, itself."""
    return tokens[max(place - 1, 0)]


class Table:
    """What one tenant's texts have taught: rows of one token, then rows of two, which know whose they are."""

    def __init__(self, vocab_size: int, width: int) -> None:
        self._size, self._num_slots = vocab_size, PAIRS
        width = min(width, vocab_size)
        self._tokens: NDArray[np.int32] = np.zeros((vocab_size + self._num_slots, width), np.int32)
        self._chances: NDArray[np.float32] = np.zeros((vocab_size + self._num_slots, width), np.float32)
        self._followed: NDArray[np.int32] = np.full(vocab_size + self._num_slots, -1, np.int32)
        self._pairs: NDArray[np.int64] = np.full(vocab_size + self._num_slots, -1, np.int64)  # of slots alone

    def read(self, text: Sequence[int], start: int) -> None:
        """Learn what follows what from `text[start]` on."""
        new = np.array(text[start:], np.int64)
        if new.size > 1:
            before = np.concatenate(([token_before(text, start)], new[:-2]))
            self._followed[new[:-1]] = new[1:]
            self._followed[self._claim(before, new[:-1])] = new[1:]

    def learn(self, logits: NDArray[np.float32], rows: Sequence[int], pairs: Sequence[tuple[int, int]]) -> None:
        """Keep what the target thought after pairs of tokens, from rows of `logits` (n, V); of equal pairs the last."""
        likely, chances = likeliest(logits, rows, self._tokens.shape[1])
        before, last = np.array(pairs, np.int64).T
        for places in (last, self._claim(before, last)):
            self._tokens[places] = likely
            self._chances[places] = chances

    def grow(self, root: tuple[int, int], min_chance: float, limits: DraftLimits, source: str) -> DraftTree:
        """The likeliest continuations of the last two tokens, none believed reached less often than `min_chance`."""
        builder = TreeBuilder(source)
        depths: list[int] = []
        # (-chance from the root, tie-break, parent node, its token, its chance, its children, which of them)
        heap: list[tuple[float, int, int, int, float, list[Child], int]] = []
        _push(heap, (-1, root[1], 1.0), self.children(*root, min_chance), 0)
        while heap and len(builder) < limits.max_nodes:
            negative, _, parent, above, mass, children, place = heapq.heappop(heap)
            if -negative < min_chance:
                break
            score, token, bucket = children[place]
            node = builder.add(parent, token, score, bucket)
            _push(heap, (parent, above, mass), children, place + 1)
            depths.append(depths[parent] + 1 if parent >= 0 else 1)
            if depths[node] < limits.max_depth:
                _push(heap, (node, token, -negative), self.children(above, token, min_chance / -negative), 0)
        return builder.build()

    def children(self, before: int, last: int, min_score: float) -> list[Child]:
        """What may follow two tokens, best first, with scores of `least` and more; at most 1 together."""
        pair = before * self._size + last
        slot = self._size + pair % self._num_slots
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
        slots = self._size + pairs % self._num_slots
        stale = slots[self._pairs[slots] != pairs]
        self._chances[stale, 0] = 0.0
        self._followed[stale] = -1
        self._pairs[slots] = pairs
        return slots


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
