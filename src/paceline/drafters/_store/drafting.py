"""A tree of what followed a suffix: SuffixDecoding's frequencies (arXiv 2411.04975) over places of unequal agreement.

A place counts by the square of its agreement, so that the longest decides where it says anything, as in PPM, and
shorter ones fill in.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Protocol

from paceline.drafters._store.ring import Hit
from paceline.engine.request import DraftLimits
from paceline.engine.tree import DraftTree, TreeBuilder

_SHARE_BINS = 5  # a single place; then by the share of the weight
_LENGTH_BINS = 5  # agreement 2, 4, 8, 16, 32
NUM_SIGNS = _SHARE_BINS * _LENGTH_BINS


class Places(Protocol):
    """Where tokens stand, and are read from."""

    def token(self, place: int) -> int:
        """The token at a place; -1 behind a text's end."""


def draft(texts: Places, hits: Sequence[Hit], limits: DraftLimits, min_score: float, source: str) -> DraftTree:
    """The likeliest continuations of the hits, best first, none less likely than `min_score`.

    A bucket names how long the agreement is, up to the node, and how large a share of the places goes on with it.
    """
    builder = TreeBuilder(source)
    heap: list[tuple[float, int, int, int, int, float, int, Sequence[Hit]]] = []
    _push(heap, texts, hits, (-1.0, -1, 0), min_score)
    while heap and len(builder) < limits.max_nodes:
        chance, _, parent, depth, token, score, bucket, group = heapq.heappop(heap)
        node = builder.add(parent, token, score, bucket)
        if depth < limits.max_depth:
            _push(heap, texts, group, (chance, node, depth), min_score)
    return builder.build()


def _push(
    heap: list[tuple[float, int, int, int, int, float, int, Sequence[Hit]]],
    texts: Places,
    hits: Sequence[Hit],
    above: tuple[float, int, int],
    min_score: float,
) -> None:
    """Offer the tokens that follow `hits` under a node: (minus its chance, node, depth)."""
    chance, parent, depth = above
    groups: dict[int, list[Hit]] = {}
    weights: dict[int, int] = {}
    total = 0
    for hit in hits:
        place, agreement = hit
        weight = agreement * agreement
        total += weight
        token = texts.token(place + depth)
        if token in weights:
            weights[token] += weight
            groups[token].append(hit)
        elif token >= 0:
            weights[token], groups[token] = weight, [hit]
    for token, weight in weights.items():
        share, length = weight / total, groups[token][0][1] + depth  # the longest stand first
        score = share * length / (length + (6 if len(hits) == 1 else 2))
        if -chance * score >= min_score:
            entry = (chance * score, len(heap), parent, depth + 1, token, score, _bucket(length, share, len(hits)))
            heapq.heappush(heap, (*entry, groups[token]))


def _bucket(length: int, share: float, num_hits: int) -> int:
    share_bin = 0 if num_hits == 1 else 1 + (share >= 0.25) + (share >= 0.5) + (share >= 0.85)
    return min(length.bit_length() - 2, _LENGTH_BINS - 1) * _SHARE_BINS + share_bin
