"""A target and a pacer that pass everything on: what differs is for subclasses to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.engine.ports import Ask, Budget, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import DraftTree


class WrappedTarget:
    """A `Target` that is another one."""

    on_prefill: Callable[[int], None] | None = None

    def __init__(self, inner: Target) -> None:
        self.inner = inner
        self.vocab_size = inner.vocab_size
        self.max_length = inner.max_length
        self.contexts = inner.contexts
        self.capacity = inner.capacity
        self.reads = inner.reads
        self.generation_config = getattr(inner, "generation_config", None)

    @property
    def row_counts(self) -> Sequence[int]:
        """See `Target`."""
        return self.inner.row_counts

    @property
    def host(self) -> Any:
        """The inner target for heads, if it takes any."""
        return getattr(self.inner, "host", None)

    @property
    def hosting(self) -> float:
        """See `Target`."""
        return self.inner.hosting

    @property
    def cache_usage(self) -> float:
        """See `Target`."""
        return self.inner.cache_usage

    def reserve(self, request: Request, spare: int) -> bool:
        """See `Target`."""
        return self.inner.reserve(request, spare)

    def num_unread(self, request: Request) -> int:
        """See `Target`."""
        return self.inner.num_unread(request)

    def read(self, request: Request, max_rows: int) -> int:
        """See `Target`."""
        return self.inner.read(request, max_rows)

    def grow(self, request: Request, num_rows: int) -> int:
        """See `Target`."""
        return self.inner.grow(request, num_rows)

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`."""
        return self.inner.score(work)

    def dry_run(self, num_rows: int, context: int) -> bool:
        """See `Target`."""
        return self.inner.dry_run(num_rows, context)

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """See `Target`."""
        self.inner.commit(request, path)

    def rewind(self, request: Request, num_tokens: int) -> bool:
        """See `Target`."""
        return self.inner.rewind(request, num_tokens)

    def free(self, request: Request) -> None:
        """See `Target`."""
        self.inner.free(request)

    def numerics(self) -> dict[str, Any]:
        """See `Target`."""
        return self.inner.numerics()

    def model_digest(self) -> str:
        """See `Target`."""
        return self.inner.model_digest()

    def memory(self) -> dict[str, int]:
        """See `Target`."""
        return self.inner.memory()


class WrappedPacer(Pacer):
    """A `Pacer` that is another one."""

    def __init__(self, inner: Pacer) -> None:
        self.inner = inner

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""
        self.inner.attach(drafter, target)

    def arrive(self, request: Request) -> None:
        """See `Pacer`."""
        self.inner.arrive(request)

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        self.inner.start(request, prefill)

    def resume(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        self.inner.resume(request, prefill)

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        return self.inner.draft(requests, budget, ask)

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        self.inner.observe(outcomes, times)

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
        self.inner.finish(request)

    def rest(self) -> None:
        """See `Pacer`."""
        self.inner.rest()

    def close(self) -> None:
        """See `Pacer`."""
        self.inner.close()
