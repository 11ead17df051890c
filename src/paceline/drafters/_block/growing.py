"""A tree from one forward of a block head: the likeliest paths through its slots' candidates, best first.

Each slot offers its best tokens by logits over the temperature plus the target's own noise: as the transition has them
behind the first node that stands before it, the likeliest as a rule. Behind other nodes the same tokens are scored
anew, so that a branch needs no forward. The candidates of one slot share out their belief among themselves. Best-first
growth over such marginals is DDTree's; the noise is ours (docs/exactness.md).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._draft_model.fed import bucket_of
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.sampling.noise import largest
from paceline.sampling.sampler import softmax

if TYPE_CHECKING:
    from paceline.heads.weights import Floats, Weights

CONSIDERED = 16  # tokens of a slot among which belief is shared out
BRANCH = 4  # of them, those that may become children
LEAST = 0.02  # chance of being reached that a node must have


class Drawn(NamedTuple):
    """What a slot offers, for a request: tokens as the head numbers them and as the target does, and their scores.

    Scores are without the transition, whatever it had to do with the choice.
    """

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
        state = self._start()
        drawn: dict[int, Drawn] = {}
        heap: list[tuple[float, int, tuple[int, int, float, int]]] = []
        count = 0

        def branch(node: int, token: int, reached: float, slot: int, state: Floats) -> Floats:
            nonlocal count
            after, vector = self._step(state, token, slot)
            if slot not in drawn:
                drawn[slot] = self._draw(request, slot, vector)
            found = self._children(request, drawn[slot], vector)
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

    def chain(self, request: Request) -> list[Drawn]:
        """What each slot offers behind the best candidates of those before it."""
        found: list[Drawn] = []
        token, state = request.tokens[-1], self._start()
        for slot in range(len(self.logits)):
            state, vector = self._step(state, token, slot)
            found.append(self._draw(request, slot, vector))
            token = next((child for child, _ in self._children(request, found[-1], vector)), token)
        return found

    def _start(self) -> Floats:
        return np.zeros(0 if self._weights is None else self._weights.state_size, np.float32)

    def _step(self, state: Floats, token: int, slot: int) -> tuple[Floats, Floats]:
        """The state behind a slot, and the vector (r,) that re-scores it."""
        if self._weights is None:
            return state, state
        return self._weights.step(state, token, self.features[slot])

    def _biases(self, own: NDArray[np.int64] | slice, vector: Floats) -> Floats:
        """What the transition adds to logits."""
        return np.zeros(1, np.float32) if self._weights is None else self._weights.w2[own] @ vector

    def _draw(self, request: Request, slot: int, vector: Floats) -> Drawn:
        """The best candidates of a slot for the place where it stands."""
        logits = self.logits[slot] + self._biases(slice(None), vector)
        if slot == 0 and request.sampler.grammar is not None:  # deeper the head must follow it by itself
            mask = request.sampler.grammar.mask()
            logits = np.where(mask if self._d2t is None else mask[self._d2t], logits, np.float32(-np.inf))
        own, sums = self._best(request, len(request.tokens) + slot, logits)
        tokens = own if self._d2t is None else self._d2t[own]
        return Drawn(own, tokens, sums - self._biases(own, vector) / _temperature(request))

    def _best(self, request: Request, position: int, logits: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The best of some logits with a position's noise, and their scores."""
        if request.params.is_greedy:
            own = largest(logits, CONSIDERED)
            return own, logits[own].astype(np.float64)
        noise, scaled = request.sampler.noise, np.divide(logits, request.params.temperature, dtype=np.float64)
        if self._d2t is None:
            return noise.best(scaled, position, CONSIDERED)
        sums = scaled + noise.at(position)[self._d2t]
        own = largest(sums, CONSIDERED)
        return own, sums[own]

    def _children(self, request: Request, drawn: Drawn, vector: Floats) -> list[tuple[int, float]]:
        """(token, believed chance) of the best candidates, by a vector of the transition."""
        scores = drawn.scores + self._biases(drawn.own, vector) / _temperature(request)
        if not np.isfinite(scores).any() or np.isnan(scores).any():
            return []
        best = largest(scores, BRANCH)
        shares = softmax(scores)[best]
        return list(zip(drawn.tokens[best].tolist(), shares.tolist(), strict=True))


def _temperature(request: Request) -> float:
    """That scores are over: 1 where no noise is added."""
    return 1.0 if request.params.is_greedy else request.params.temperature
