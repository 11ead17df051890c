"""The words of Paceline as types: the draft tree, what a step did, and the two ports, `Drafter` and `Target`.

Knows nothing of models, sampling or files. R rows, V vocabulary throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from paceline.request import Request


@dataclass(frozen=True, slots=True)
class DraftTree:
    """A proposal for what follows the pending token, which is not itself a node.

    Nodes stand parents before children. An empty tree is plain decoding.
    """

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()  # index of each node's parent; -1 is the pending token
    scores: tuple[float, ...] = ()  # the drafter's estimate that the target, once at the parent, says the token
    sources: tuple[str, ...] = ()  # which drafter proposed the node
    signs: tuple[int, ...] = ()  # what each estimate rests on: nodes of one sign succeed alike; empty: their scores

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depths(self) -> tuple[int, ...]:
        """Each node's distance from the pending token, from 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return tuple(depths)


@dataclass(frozen=True, slots=True)
class Choice:
    """The target's token at one place, and what the model thought there.

    `logprob`, `entropy` (nats), `top` and `logit` are the model's own, before any parameter; `margin` is the law's.
    """

    token: int
    logprob: float
    entropy: float
    top: tuple[tuple[int, float], ...] = ()  # (token, logprob), likeliest first; empty unless asked for
    margin: float = math.inf  # best less second best of score plus noise; inf where only one token is allowed
    logit: float = 0.0  # the token's own; its size says how finely the model's dtype resolves the margin


@dataclass(frozen=True, slots=True)
class Token:
    """One emitted token. `text` may be empty while a character or a stop string is incomplete."""

    id: int
    text: str
    source: str  # the drafter that proposed it, or "target"
    logprob: float
    entropy: float
    top: tuple[tuple[int, float], ...] = ()
    margin: float = math.inf  # as in `Choice`
    logit: float = 0.0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one step did for one request, told to drafters and statistics after the commit."""

    request: Request
    tree: DraftTree
    path: tuple[int, ...]  # accepted nodes, from the root down
    tokens: tuple[Token, ...]  # emitted: the accepted drafts and one more, unless a stop cut them
    logits: NDArray[np.float32]  # (nodes + 1, V) the target's: row 0 the pending token's, row i + 1 node i's

    @property
    def num_accepted_drafts(self) -> int:
        """Accepted draft tokens that were emitted; the correction or bonus token is never counted."""
        return min(len(self.path), len(self.tokens))

    @property
    def num_evaluated_drafts(self) -> int:
        """Places where drafts were put to the test: the accepted ones, and one more where none was right."""
        if len(self.tokens) <= len(self.path):  # a stop ended the request with a draft
            return len(self.tokens)
        last = self.path[-1] if self.path else -1
        return len(self.path) + (last in self.tree.parents)


@dataclass(frozen=True)
class Environment:
    """What a drafter may know of the engine it joins."""

    tokenizer: Any  # the target's, or None
    vocab_size: int
    device: str
    draft_model: str | None = None  # a small model known to draft for the target


class Drafter(Protocol):
    """Proposes what the target may say. It can be anything at all: exactness never depends on it.

    It need not be asked at every step, and reads what it has missed in `request.tokens` when it is asked.
    """

    name: ClassVar[str]

    def attach(self, environment: Environment) -> None:
        """Join an engine; called once, before any request."""

    def start(self, request: Request) -> bool:
        """Take up a request, without reading it yet; False if there is nothing for this drafter to do."""

    def propose(self, requests: Sequence[Request], budgets: Sequence[int]) -> Iterator[list[DraftTree]]:
        """Yield one tree per request, of at most `budgets[i]` nodes; an empty one is always allowed.

        Who can look further at a price yields again: trees that go on where the last ones ended, their nodes first and
        unchanged. Whoever asks takes the next only if it promises to pay, so closing the iterator early is usual.
        """

    def observe(self, outcome: StepOutcome) -> None:
        """Learn from a committed step in which it was asked."""

    def finish(self, request: Request) -> None:
        """Forget a request: at its end, when it is aborted, and also if it was never started."""

    def close(self) -> None:
        """Release what the drafter holds."""


class Target(Protocol):
    """The model whose text is emitted. Between steps its cache holds `request.tokens[:-1]`."""

    vocab_size: int
    max_length: int  # context length in tokens, prompt and output together
    capacity: int  # tokens of one request that the cache can hold, prompt and output together
    on_prefill: Callable[[int], None] | None  # told how many prompt tokens each chunk of prefill had

    @property
    def row_counts(self) -> Sequence[int]:
        """Rows that a forward may have, ascending; fewer are padded to the next."""

    def reserve(self, request: Request) -> bool:
        """Set aside cache for the whole request; False if it must wait for others to finish."""

    def prefill(self, request: Request) -> None:
        """Fill the cache with `request.tokens[:-1]`."""

    def max_budget(self, num_requests: int) -> int:
        """Most draft nodes that each of so many requests may bring to one forward."""

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """Logits (nodes + 1, V) float32 for each request; row 0 is the pending token's.

        One forward, or as many as it takes where there are more requests than a forward has rows.
        """

    def rehearse(self, num_rows: int, context: int) -> bool:
        """Run a forward of so many rows behind so many cached positions, for its time; False if they do not fit."""

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """Keep the rows of the pending token and of the accepted nodes, drop the rest."""

    def free(self, request: Request) -> None:
        """Give back the request's cache. Freeing twice, or what was never reserved, does nothing."""

    def numerics(self) -> dict[str, Any]:
        """The numeric path: what the bits depend on (kernels, instruction set, threads, row counts)."""

    def memory(self) -> dict[str, int]:
        """Bytes: `weight_bytes`, `pool_bytes` (the cache when full) and `peak_bytes` (the process so far)."""
