"""Trees grown in Python, on any device: one call of the draft model for each level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._draft_model.fed import CONSIDERED, Asked, Shape, bucket_of
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree, TreeBuilder
from paceline.sampling.noise import largest
from paceline.sampling.sampler import softmax

if TYPE_CHECKING:
    from paceline.model.decoder import Decoder
    from paceline.model.pool import CachedSequence


class FedNodes:
    """See `Fed`: the nodes as lists."""

    def __init__(self, sequence: CachedSequence) -> None:
        self.sequence = sequence
        self.clear()

    def clear(self) -> None:
        """See `Fed`."""
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self._places: dict[int, int] = {}  # node of the tree -> place among those fed

    def nodes(self) -> tuple[Sequence[int], Sequence[int]]:
        """See `Fed`."""
        return self.tokens, self.parents

    def feed(self, node: int, token: int, parent: int) -> None:
        """Append a node of the tree under another one that was fed, or under the pending token (-1)."""
        self._places[node] = len(self.tokens)
        self.tokens.append(token)
        self.parents.append(self._places.get(parent, -1))


class ModuleLevels:
    """See `Levels`."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def take_up(self, request: Request, sequence: CachedSequence) -> FedNodes:
        """See `Levels`."""
        return FedNodes(sequence)

    def num_tokens(self, request: Request, fed: object) -> int:
        """See `Levels`: the target's."""
        return len(request.tokens)

    def grow(self, asked: Sequence[Asked], shape: Shape, source: str) -> list[DraftTree]:
        """See `Levels`."""
        growing = [Growth(request, fed, limits, shape, source) for request, fed, limits in asked]
        self._catch_up(growing)
        min_gain = sum(g.limits.min_gain for g in growing)
        going = [g for g in growing if g.promise > 0.0]
        while sum(g.promise for g in going) > min_gain:
            self._descend(going, shape)
            going = [g for g in going if g.promise > 0.0]
        return [g.builder.build() for g in growing]

    def _catch_up(self, growing: Sequence[Growth]) -> None:
        """Feed each request's tokens that are not cached yet, the pending one last, and branch from it."""
        from paceline.model.rows import TreeWork

        work = []
        for g in growing:
            g.fed.clear()
            missing = self.decoder.read(g.fed.sequence, g.request.tokens, self.decoder.max_rows // len(growing))
            work.append(TreeWork(g.fed.sequence, missing, range(-1, len(missing) - 1)))
        logits = self.decoder.forward(work)
        end = 0
        for g, item in zip(growing, work, strict=True):
            end += len(item.tokens)
            g.fed.sequence.advance(len(item.tokens))
            g.branch(-1, 1.0, logits[end - 1])

    def _descend(self, growing: Sequence[Growth], shape: Shape) -> None:
        """Feed each request's best new nodes in one forward, and branch from them."""
        from paceline.model.rows import TreeWork

        width = min(shape.width, self.decoder.max_rows // len(growing))
        chosen = [(g, g.take(width)) for g in growing]
        work = [
            TreeWork(g.fed.sequence, g.fed.tokens, g.fed.parents, len(g.fed.tokens) - len(nodes)) for g, nodes in chosen
        ]
        rows = iter(self.decoder.forward(work))
        for g, nodes in chosen:
            for node, score in nodes:
                g.branch(node, score, next(rows))


class Growth:
    """One request's tree while it grows."""

    def __init__(self, request: Request, fed: object, limits: DraftLimits, shape: Shape, source: str) -> None:
        assert isinstance(fed, FedNodes)
        self.request, self.fed, self.limits = request, fed, limits
        self.builder = TreeBuilder(source)
        self._branch = shape.branch
        self._level, self._before, self._gain = 1, 1.0, 0.0  # of nodes; tokens expected of the last one, and of this
        self._depth_of = {-1: 0}
        self._parent_of: dict[int, int] = {}
        self._token_of: dict[int, int] = {}
        self._new: list[tuple[float, int]] = []  # (score, node) not fed yet, of the newest depth

    @property
    def promise(self) -> float:
        """Tokens that a further level should bring; 0 if there may be none.

        It should bring less than this one by as much as this one brings less than the last.
        """
        if self._level >= self.limits.max_depth or len(self.builder) >= self.limits.max_nodes:
            return 0.0
        return self._gain * min(self._gain / self._before, 1.0)

    def branch(self, node: int, reached: float, logits: NDArray[np.float32]) -> None:
        """Add the children of a node that was fed, from its logits (V,); `reached` is the chance of coming there."""
        depth = self._depth_of[node]
        room = self.limits.max_nodes - len(self.builder)
        if node < 0 and self.request.sampler.grammar is not None:  # deeper the draft model must follow it by itself
            logits = np.where(self.request.sampler.grammar.mask(), logits, np.float32(-np.inf))
        for token, share in self._children(logits, len(self.request.tokens) + depth)[:room]:
            child = self.builder.add(node, token, share, bucket_of(share, depth + 1))
            self._depth_of[child], self._parent_of[child], self._token_of[child] = depth + 1, node, token
            self._new.append((reached * share, child))
            self._gain += reached * share

    def take(self, width: int) -> list[tuple[int, float]]:
        """The best nodes of the newest depth, marked as fed: (node, score)."""
        best = sorted(self._new, reverse=True)[:width]
        self._new = []
        self._level, self._before, self._gain = self._level + 1, self._gain, 0.0
        for _, node in best:
            self.fed.feed(node, self._token_of[node], self._parent_of[node])
        return [(node, score) for score, node in best]

    def _children(self, logits: NDArray[np.float32], position: int) -> list[tuple[int, float]]:
        """(token, believed chance) of the top-k of log q + G; the belief is the softmax of those very sums."""
        params = self.request.params
        if params.is_greedy:
            best = largest(logits, CONSIDERED)
            sums = logits[best].astype(np.float64)
        else:
            scores = np.divide(logits, params.temperature, dtype=np.float64)
            best, sums = self.request.sampler.noise.best(scores, position, CONSIDERED)
        if not np.isfinite(sums.max()):
            return []  # nobody can say what numbers that are none would mean
        shares = softmax(sums).tolist()[: self._branch]
        return [(token, share) for token, share in zip(best.tolist(), shares, strict=False) if share > 0.0]
