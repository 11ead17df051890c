"""The ports of the engine: the target that scores, and the pacer that says who drafts. `Drafter` is in request.py.

Knows nothing of models, sampling or files. R rows, V vocabulary throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def dry_run(self, num_rows: int, context: int) -> bool:
        """Run a forward of so many rows behind so many cached positions, to no end; False if they do not fit."""

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """Keep the rows of the pending token and of the accepted nodes, drop the rest."""

    def free(self, request: Request) -> None:
        """Give back the request's cache. Freeing twice, or what was never reserved, does nothing."""

    def numerics(self) -> dict[str, Any]:
        """The numeric path: what the bits depend on (kernels, instruction set, threads, row counts)."""

    def memory(self) -> dict[str, int]:
        """Bytes: `weight_bytes`, `pool_bytes` (the cache when full) and `peak_bytes` (the process so far)."""


class Pacer(Protocol):
    """Decides who drafts and how far. It sees every step of every request; its verbs are those of `Drafter`."""

    def attach(self, drafter: Drafter, target: Target) -> None:
        """Get to know a drafter that has joined the engine, before any request. Attaching twice does nothing."""

    def start(self, request: Request, prefill: float) -> None:
        """Take up a request whose prompt is in the cache; reading it took `prefill` seconds."""

    def draft(self, requests: Sequence[Request], max_nodes: int, ask: Ask) -> list[DraftTree]:
        """One tree per request, of at most `max_nodes` nodes; empty ones where drafting does not pay."""

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """Learn from a step; `times.observing` is when the drafters began to."""

    def finish(self, request: Request) -> None:
        """Forget a request; also one that never started."""

    def rest(self) -> None:
        """Nothing is being decoded: do what can wait, in a few milliseconds."""

    def close(self) -> None:
        """Nothing will be decoded any more."""
