"""A tree from one forward of a block head: the likeliest paths through its slots' candidates, best first.

Each slot offers its best tokens by logits over the temperature plus the target's own noise. A transition re-scores
them behind each token that may stand before, so no forward is needed for a branch. The candidates of one slot share out
their belief among themselves. Best-first growth over such marginals is DDTree's; the noise is ours (docs/exactness.md).
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._draft_model.fed import bucket_of
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.heads.weights import Floats, Weights
from paceline.sampling.noise import largest
from paceline.sampling.sampler import softmax

CONSIDERED = 16  # tokens of a slot among which belief is shared out
BRANCH = 4  # of them, those that may become children
LEAST = 0.02  # chance of being reached that a node must have


class Drawn(NamedTuple):
    """What a slot offers, for a request: tokens as the head numbers them and as the target does, and their scores."""

    own: NDArray[np.int64]  # (K,)
    tokens: NDArray[np.int64]  # (K,)
    scores: NDArray[np.float64]  # (K,) logits over temperature, plus noise


class Growth:
    """One request's tree.

    Args:
        said: (proposals, num_logits + F) what the head's slots said.
        weights: of the transition; None without one.
        d2t: (num_logits,) the target's token of each of the head's; None where they are the same.
    """

    def __init__(self, said: Floats, weights: Weights | None, d2t: NDArray[np.int64] | None) -> None:
        self._weights, self._d2t = weights, d2t
        count = said.shape[1] - (0 if weights is None else len(weights.joint))
        self.logits, self.features = said[:, :count], said[:, count:]

    def tree(self, request: Request, limits: DraftLimits, source: str) -> DraftTree:
        """The nodes that are likeliest to be reached, within the limits."""
        builder, depth = TreeBuilder(source), min(limits.max_depth, len(self.logits))
        state = np.zeros(0 if self._weights is None else self._weights.state_size, np.float32)
        drawn: dict[int, Drawn] = {}
        heap: list[tuple[float, int, tuple[int, int, float, int]]] = []
        count = 0

        def branch(node: int, token: int, reached: float, slot: int, state: Floats) -> Floats:
            nonlocal count
            if slot not in drawn:
                drawn[slot] = self.draw(request, slot)
            after, found = self._children(request, drawn[slot], token, slot, state)
            for child, share in found:
                if reached * share >= LEAST:
                    heapq.heappush(heap, (-reached * share, count, (node, child, share, slot)))
                    count += 1
            return after

        states = {-1: branch(-1, request.tokens[-1], 1.0, 0, state)} if depth and limits.max_nodes else {}
        while heap and len(builder) < limits.max_nodes:
            reached, _, (parent, token, share, slot) = heapq.heappop(heap)
            node = builder.add(parent, token, share, bucket_of(share, slot + 1))
            if slot + 1 < depth:
                states[node] = branch(node, token, -reached, slot + 1, states[parent])
        return builder.build()

    def draw(self, request: Request, slot: int) -> Drawn:
        """The best candidates of a slot for the place where it stands."""
        logits = self.logits[slot]
        if slot == 0 and request.sampler.grammar is not None:  # deeper the head must follow it by itself
            mask = request.sampler.grammar.mask()
            logits = np.where(mask if self._d2t is None else mask[self._d2t], logits, np.float32(-np.inf))
        if request.params.is_greedy:
            own = largest(logits, CONSIDERED)
            scores = logits[own].astype(np.float64)
            return Drawn(own, own if self._d2t is None else self._d2t[own], scores)
        position, noise = len(request.tokens) + slot, request.sampler.noise
        scaled = np.divide(logits, request.params.temperature, dtype=np.float64)
        if self._d2t is None:
            own, sums = noise.best(scaled, position, CONSIDERED)
            return Drawn(own, own, sums)
        sums = scaled + noise.at(position)[self._d2t]
        own = largest(sums, CONSIDERED)
        return Drawn(own, self._d2t[own], sums[own])

    def _children(
        self, request: Request, drawn: Drawn, before: int, slot: int, state: Floats
    ) -> tuple[Floats, list[tuple[int, float]]]:
        """The state behind a slot, and (token, believed chance) of the best candidates behind a token."""
        scores = drawn.scores
        if self._weights is not None:
            state, vector = self._weights.step(state, before, self.features[slot])
            biases = self._weights.w2[drawn.own] @ vector
            scores = scores + (biases if request.params.is_greedy else biases / request.params.temperature)
        if not np.isfinite(scores).any() or np.isnan(scores).any():
            return state, []
        best = largest(scores, BRANCH)
        shares = softmax(scores)[best]
        return state, list(zip(drawn.tokens[best].tolist(), shares.tolist(), strict=True))
