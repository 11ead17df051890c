"""`HFTarget`: a transformers model behind the `Target` port."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.engine.ports import Reading
from paceline.engine.request import Request
from paceline.engine.tree import DraftTree
from paceline.model.decoder import Decoder
from paceline.model.fingerprint import model_digest
from paceline.model.numerics import instruction_set, peak_bytes, weight_bytes
from paceline.model.pool import CachedSequence
from paceline.model.prefix import PAGE_SIZE, Before
from paceline.model.reading import Beginning, RequestCache
from paceline.model.rows import TreeWork

SCRATCH = PAGE_SIZE  # positions kept free beyond a request's last token for the rows of its draft tree


if TYPE_CHECKING:
    from paceline.model.hosting import Host


class HFTarget:
    """The `Target` port over a `Decoder`. See engine/ports.py for what each method promises."""

    def __init__(
        self, decoder: Decoder, vocab_size: int, max_length: int, path_name: str, reads: Reading | None = None
    ) -> None:
        self.decoder = decoder
        self.reads = reads
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.contexts: Sequence[int] = decoder.contexts
        self.capacity = (decoder.pool.num_pages - 1) * PAGE_SIZE - SCRATCH
        self.generation_config = decoder.model.generation_config
        self._path_name = path_name
        self._weight_bytes = weight_bytes(decoder.model)
        self._caches: dict[int, RequestCache] = {}  # by request id
        self.on_prefill: Callable[[int], None] | None = None
        self.hosted_share = 0.0  # of a forward's time that heads take where their context is kept
        self.hosting = 0.0

    @cached_property
    def host(self) -> Host:
        """The same for heads, one for all engines that it is in."""
        from paceline.model.hosting import Host

        return Host(self)

    def reserve(self, request: Request, spare: int) -> bool:
        """See `Target`. It begins with what the prefix cache has."""
        cache = RequestCache.reserve(self.decoder, request, spare)
        if cache is None:
            return False
        self._caches[request.id] = cache
        self._note_found(request, cache, cache.num_found)
        return True

    def num_unread(self, request: Request) -> int:
        """See `Target`."""
        cache = self._caches.get(request.id)
        if cache is not None:
            return cache.num_unread
        source, num_tokens = self.decoder.source(request), len(request.tokens) - 1
        before: Before | None = self.decoder.beginning(request)
        if source is not None:
            source.find()
            before = source.before
        if before is None:
            return len(request.source) + num_tokens
        return num_tokens - Beginning.find(self.decoder, request, before).num_positions

    def read(self, request: Request, max_rows: int) -> int:
        """See `Target`."""
        cache = self._caches[request.id]
        self._note_found(request, cache, cache.find_more())
        count = cache.read(max_rows)
        self._tell(request, count)
        return count

    def _note_found(self, request: Request, cache: RequestCache, count: int) -> None:
        """Positions that the prefix cache had: not of what is read again after a preemption."""
        if request.num_output_tokens == 0:
            request.stats.num_cached_tokens = cache.num_found
        self._tell(request, count)

    def _tell(self, request: Request, count: int) -> None:
        if self.on_prefill is not None and count and request.num_output_tokens == 0:
            self.on_prefill(count)

    def sequence(self, request: Request) -> CachedSequence | None:
        """The pages of a request that has been reserved for; None of another."""
        cache = self._caches.get(request.id)
        return None if cache is None else cache.sequence

    def grow(self, request: Request, num_rows: int) -> int:
        """See `Target`."""
        sequence = self._caches[request.id].sequence
        self.decoder.pool.extend(sequence, sequence.length + num_rows)
        return min(num_rows, len(sequence.pages) * PAGE_SIZE - sequence.length)

    @property
    def cache_usage(self) -> float:
        """See `Target`."""
        return self.decoder.pool.usage

    @property
    def row_counts(self) -> Sequence[int]:
        """See `Target`."""
        return self.decoder.row_counts

    def dry_run(self, num_rows: int, context: int) -> bool:
        """See `Target`."""
        if context + num_rows > self.max_length:
            return False
        sequence = self.decoder.blank(context + num_rows)
        if sequence is None:
            return False
        sequence.length = context
        try:
            self.decoder.forward([TreeWork(sequence, [0] * num_rows, range(-1, num_rows - 1))])
        finally:
            self.decoder.pool.release(sequence)
        return True

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        """See `Target`."""
        items = [
            TreeWork(
                self._caches[request.id].sequence,
                [request.tokens[-1], *tree.tokens],
                [-1, *(parent + 1 for parent in tree.parents)],
            )
            for request, tree in work
        ]
        self.hosting = self.hosted_share if any(item.sequence.has_guests for item in items) else 0.0
        parts = [self.decoder.forward(part) for part in _parts(items, self.decoder.max_rows)]
        if len(items) == 1:
            return parts
        ends = np.cumsum([len(item.tokens) for item in items])[:-1]
        return np.split(np.concatenate(parts), ends)

    def commit(self, request: Request, path: Sequence[int]) -> None:
        """See `Target`."""
        kept = np.array([0, *(node + 1 for node in path)], np.int64)
        pool, sequence = self.decoder.pool, self._caches[request.id].sequence
        pool.keep_path(sequence, kept)
        pool.trim(sequence, sequence.length + 1)

    def rewind(self, request: Request, num_tokens: int) -> bool:
        """See `Target`."""
        return self._caches[request.id].rewind(num_tokens)

    def free(self, request: Request) -> None:
        """See `Target`."""
        cache = self._caches.pop(request.id, None)
        if cache is not None:
            self.decoder.interest.note(request.id, is_asked=cache.sequence.was_asked and cache.sequence.has_guests)
            cache.release()

    def numerics(self) -> dict[str, Any]:
        """See `Target`."""
        model = self.decoder.model
        return {
            "path": self._path_name,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": str(model.device),
            "instruction_set": instruction_set(model.device),
            "threads": torch.get_num_threads(),
            "row_counts": list(self.decoder.row_counts),
            "torch": torch.__version__,
        }

    def model_digest(self) -> str:
        """See `Target`."""
        return model_digest(self.decoder.model)

    def memory(self) -> dict[str, int]:
        """See `Target`."""
        return {
            "weight_bytes": self._weight_bytes,
            "pool_bytes": self.decoder.pool.num_bytes,
            "peak_bytes": peak_bytes(self.decoder.pool.device),
        }


def _parts(items: Sequence[TreeWork], max_rows: int) -> list[list[TreeWork]]:
    """The trees in runs that fit in a forward each: one run, unless there are more requests than rows."""
    parts: list[list[TreeWork]] = [[]]
    room = max_rows
    for item in items:
        if len(item.tokens) > room:
            parts.append([])
            room = max_rows
        parts[-1].append(item)
        room -= len(item.tokens)
    return parts
