"""What the drafts said at each place where a token was emitted, read from the trace of an output's steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from paceline.engine.trace import StepRecord
from paceline.engine.tree import DraftTree

EMPTY = DraftTree()


@dataclass(frozen=True, slots=True)
class Place:
    """One emitted token and the draft nodes that stood for election there."""

    token: int
    step: int
    depth: int  # from 1: the step's first token
    tree: DraftTree
    nodes: tuple[int, ...]  # of the tree: those below the accepted path so far

    @property
    def accepted(self) -> int | None:
        """The node that carries the token, if one does."""
        return next((node for node in self.nodes if self.tree.tokens[node] == self.token), None)

    @property
    def kind(self) -> str:
        """`accepted`; `corrected`: drafts were there and none was it; `bonus`: behind the last draft; else `plain`."""
        if self.nodes:
            return "corrected" if self.accepted is None else "accepted"
        return "bonus" if self.depth > 1 else "plain"

    @property
    def disagreement(self) -> float | None:
        """1 - the chance that the drafts gave to the token; None where nothing was proposed."""
        if not self.nodes:
            return None
        return 1.0 if self.accepted is None else 1.0 - self.tree.scores[self.accepted]


def places(steps: Sequence[StepRecord], token_ids: Sequence[int]) -> list[Place]:
    """The place of each token. A step that was interrupted left no record: its tokens count as undrafted."""
    found = list(_recorded(steps, iter(token_ids)))
    rest = token_ids[len(found) :]
    return found + [Place(token, len(steps), 1, EMPTY, ()) for token in rest]


def _recorded(steps: Sequence[StepRecord], tokens: Iterator[int]) -> Iterator[Place]:
    for index, step in enumerate(steps):
        above = (-1, *step.path)
        below = _children(step.tree)
        for depth, token in enumerate(_take(tokens, step.num_emitted), 1):
            # A walk that could not go on gave up its last node: the token behind it has no place in the tree.
            nodes = below.get(above[depth - 1], ()) if depth <= len(above) else ()
            yield Place(token, index, depth, step.tree, tuple(nodes))


def _take(tokens: Iterator[int], count: int) -> Iterator[int]:
    return (token for _, token in zip(range(count), tokens, strict=False))


def _children(tree: DraftTree) -> dict[int, list[int]]:
    below: dict[int, list[int]] = {}
    for node, parent in enumerate(tree.parents):
        below.setdefault(parent, []).append(node)
    return below


@dataclass(frozen=True, slots=True)
class Acceptance:
    """How one drafter's nodes of one depth fared: of those whose parent was accepted, how many were right."""

    drafter: str
    depth: int
    num_judged: int
    num_accepted: int

    @property
    def rate(self) -> float:
        """Accepted over judged."""
        return self.num_accepted / self.num_judged


def acceptance(found: Iterable[Place]) -> list[Acceptance]:
    """By drafter, then depth."""
    counts: dict[tuple[str, int], list[int]] = {}
    for place in found:
        for node in place.nodes:
            count = counts.setdefault((place.tree.sources[node], place.depth), [0, 0])
            count[0] += 1
            count[1] += node == place.accepted
    return [Acceptance(drafter, depth, *counts[drafter, depth]) for drafter, depth in sorted(counts)]


@dataclass(frozen=True, slots=True)
class Bin:
    """Nodes or decisions that were believed about equally: what they were believed, and what came of them."""

    believed: float  # mean
    right: float  # share
    count: int


NUM_BINS = 10


def reliability(found: Iterable[Place]) -> list[Bin]:
    """Tenths of belief that have judged nodes: a node is judged if its parent was accepted or is the root."""
    sums: dict[int, list[float]] = {}
    for place in found:
        for node in place.nodes:
            score = place.tree.scores[node]
            entry = sums.setdefault(min(int(score * NUM_BINS), NUM_BINS - 1), [0.0, 0.0, 0.0])
            entry[0] += score
            entry[1] += node == place.accepted
            entry[2] += 1
    return [Bin(believed / n, right / n, int(n)) for _, (believed, right, n) in sorted(sums.items())]
