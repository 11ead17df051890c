"""Verification: walk the draft tree along the target's own tokens.

At every node the target law draws the target's token; while a child carries it, the walk goes down. The
token that no child carries is the correction token, or the bonus token after a leaf: it is the target's own
draw already, so nothing has to be resampled and a drafter's probabilities are never asked for. Contrast
Leviathan et al. 2023 (arXiv 2211.17192), whose rule is exact in law only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from paceline.errors import RequestError
from paceline.types import Choice, DraftTree


class Law(Protocol):
    """What `walk` needs of a target law."""

    def choose(self, logits: NDArray[np.float32]) -> Choice:
        """The target's token after the history so far."""

    def advance(self, token: int) -> None:
        """Append it to the history."""


@dataclass(frozen=True, slots=True)
class Walk:
    """The accepted nodes from the root down, and the target's choices: one more than accepted nodes."""

    path: tuple[int, ...]
    choices: tuple[Choice, ...]


def walk(tree: DraftTree, logits: NDArray[np.float32], law: Law) -> Walk:
    """Follow the target through `tree`; row i + 1 of `logits` (n + 1, V) is node i's, row 0 the pending token's."""
    children = {(parent, token): i for i, (parent, token) in enumerate(zip(tree.parents, tree.tokens, strict=True))}
    path: list[int] = []
    choices: list[Choice] = []
    node: int | None = -1
    while node is not None:
        try:
            choice = law.choose(logits[node + 1])
        except RequestError:
            if not path:
                raise
            path.pop()  # its token may end the request, as in plain decoding; if not, the next step meets this again
            break
        law.advance(choice.token)
        choices.append(choice)
        node = children.get((node, choice.token))
        if node is not None:
            path.append(node)
    return Walk(tuple(path), tuple(choices))
