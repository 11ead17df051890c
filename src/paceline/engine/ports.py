"""The ports of the engine: the target that scores, and the pacer that says who drafts. `Drafter` is in request.py.

Knows nothing of models, sampling or files. R rows, V vocabulary throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from paceline.engine.request import Drafter, DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree

# Has a drafter propose; one that fails proposes nothing, and is left out of the requests from then on.
Ask = Callable[[Drafter, Sequence[Request], Sequence[DraftLimits]], list[DraftTree]]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """When a step's stages began, in seconds of the engine's clock."""

    drafting: float
    scoring: float
    committing: float
    observing: float
    hosting: float = 0.0  # seconds of the scoring that heads of the target took, whose context it keeps
    reading: float = 0.0  # those in which others' prompts were read in the same forward, by an estimate

    @property
    def forward(self) -> float:
        """Seconds of the forward alone."""
        return self.committing - self.scoring - self.hosting - self.reading


class Budget(NamedTuple):
    """Draft nodes that a step may have: of all its requests together, and of each, at most."""

    total: int
    each: tuple[int, ...]
    is_chain: bool = False  # those of each request must be one chain: the target verifies no trees


@dataclass(frozen=True)
class Reading:
    """What a target reads beside the tokens that it goes on with: a source, of an encoder-decoder."""

    max_length: int  # tokens of it
    vocab_size: int
    page_size: int  # the cache holds it in pages of so many tokens
    is_shared: bool  # its token ids are those of outputs, so that an output may copy from it


class Target(Protocol):
    """The model whose text is emitted. Between steps its cache holds `tokens[:-1]` of each request that decodes."""

    vocab_size: int
    max_length: int  # context length in tokens, prompt and output together
    contexts: Sequence[int]  # lengths that a request may be pinned to, ascending; the last is `max_length`
    capacity: int  # tokens of one request that the cache can hold, prompt and output together
    reads: Reading | None  # None if a request is its tokens alone
    on_prefill: Callable[[int], None] | None  # told how many prompt tokens each chunk of prefill had

    @property
    def hosting(self) -> float:
        """The share of the last `score`'s time that heads took, whose context was kept; 0 without any."""

    @property
    def row_counts(self) -> Sequence[int]:
        """Rows that a forward may have, ascending; fewer are padded to the next."""

    @property
    def cache_usage(self) -> float:
        """The share of the cache that requests hold, from 0 to 1."""

    def reserve(self, request: Request, spare: int) -> bool:
        """Set aside cache for the request's tokens; False if fewer than `spare` positions would be left."""

    def num_unread(self, request: Request) -> int:
        """Positions of `tokens[:-1]` to be read still; of a request without cache, those that nothing is known of."""

    def read(self, request: Request, max_rows: int) -> int:
        """Read on in `tokens[:-1]`; how many rows that took, 0 if what others have read was all there was left.

        At most `max_rows`, but where a page's bits depend on its being read at once. A request that wants its prompt's
        logits is told those of the rows.
        """

    def grow(self, request: Request, num_rows: int) -> int:
        """Make room for so many rows behind those that are committed; for how many there is."""

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """Logits (nodes + 1, V) float32 for each request; row 0 is the pending token's.

        There is room for their rows. One forward, or as many as it takes where there are more requests than a forward
        has rows.
        """

    def dry_run(self, num_rows: int, context: int) -> bool:
        """Run a forward of so many rows behind so many cached positions, to no end; False if they do not fit."""

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """Keep the rows of the pending token and of the accepted nodes, drop the rest and the room for it."""

    def rewind(self, request: Request, num_tokens: int) -> bool:
        """Keep the first positions alone, at least those of its prompt; False if it has to be read again instead."""

    def free(self, request: Request) -> None:
        """Give back the request's cache. Freeing twice, or what was never reserved, does nothing."""

    def numerics(self) -> dict[str, Any]:
        """The numeric path: what the bits depend on (kernels, instruction set, threads, row counts)."""

    def model_digest(self) -> str:
        """What tells the model from others by any bit of its weights, and by any setting. From any thread."""

    def memory(self) -> dict[str, int]:
        """Bytes: `weight_bytes`, `pool_bytes` (the cache when full) and `peak_bytes` (the process so far)."""


class Pacer(Protocol):
    """Decides who drafts and how far. It sees every step of every request; its verbs are those of `Drafter`."""

    def attach(self, drafter: Drafter, target: Target) -> None:
        """Get to know a drafter that has joined the engine, before any request. Attaching twice does nothing."""

    def arrive(self, request: Request) -> None:
        """A request has come; it waits, and may end without ever having started."""

    def start(self, request: Request, prefill: float) -> None:
        """Take up a request whose prompt is in the cache; reading it took `prefill` seconds."""

    def resume(self, request: Request, prefill: float) -> None:
        """Take up a request again that has been preempted; reading its tokens once more took `prefill` seconds."""

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """One tree per request, within the budget; empty ones where drafting does not pay."""

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn from a step; `times.observing` is when the drafters began to."""

    def finish(self, request: Request) -> None:
        """Forget a request; also one that never started."""

    def rest(self) -> None:
        """Nothing is being decoded: do what can wait, in a few milliseconds."""

    def close(self) -> None:
        """Nothing will be decoded any more."""
