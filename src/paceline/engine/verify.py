"""Verification: walk the draft tree along the target's own tokens.

At every node the sampler draws the target's token; while a child carries it, the walk goes down. The
token that no child carries is the correction token, or the bonus token after a leaf: it is the target's own
draw already, so nothing has to be resampled and a drafter's probabilities are never asked for. Contrast
Leviathan et al. 2023 (arXiv 2211.17192), whose rule is exact in distribution only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.engine.tree import DraftTree
from paceline.errors import RequestError
from paceline.sampling.sampler import SampledToken, Sampler


@dataclass(frozen=True, slots=True)
class Verdict:
    """The accepted nodes from the root down, and the target's own tokens: one more than accepted nodes."""

    path: tuple[int, ...]
    sampled: tuple[SampledToken, ...]


def verify(tree: DraftTree, logits: NDArray[np.float32], sampler: Sampler) -> Verdict:
    """Follow the target through `tree`; row i + 1 of `logits` (n + 1, V) is node i's, row 0 the pending token's."""
    children = {(parent, token): i for i, (parent, token) in enumerate(zip(tree.parents, tree.tokens, strict=True))}
    path: list[int] = []
    sampled: list[SampledToken] = []
    node: int | None = -1
    while node is not None:
        try:
            drawn = sampler.sample(logits[node + 1])
        except RequestError:
            if not path:
                raise
            path.pop()  # its token may end the request, as in plain decoding; if not, the next step meets this again
            break
        sampler.advance(drawn.token)
        sampled.append(drawn)
        node = children.get((node, drawn.token))
        if node is not None:
            path.append(node)
    return Verdict(tuple(path), tuple(sampled))
