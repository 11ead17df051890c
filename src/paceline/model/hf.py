"""`HFTarget`: a transformers model behind the `Target` port."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from paceline.engine.ports import Reading
from paceline.engine.request import Request
from paceline.engine.tree import DraftTree
from paceline.model.fingerprint import model_digest
from paceline.model.forward import Forward, RecordedForward, forward_for
from paceline.model.inspect import sample_tokens
from paceline.model.numerics import instruction_set, peak_bytes, weight_bytes
from paceline.model.pool import CachedSequence, PagePool
from paceline.model.prefix import PAGE_SIZE, Before
from paceline.model.reading import RequestCache
from paceline.model.rotary import contexts
from paceline.model.rows import TreeWork
from paceline.model.seq2seq.encoder import Encoder
from paceline.model.seq2seq.sources import Source
from paceline.native.drafting import Drafting

SCRATCH = PAGE_SIZE  # positions kept free beyond a request's last token for the rows of its draft tree


class Decoder:
    """A model with its page pool: forwards over rows, at the row counts that were proven to share their bits.

    `forward` is another way to run the model than the one that suits it best.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pool: PagePool,
        row_counts: Sequence[int],
        max_length: int,
        forward: Forward | None = None,
    ) -> None:
        self.model = model
        self.pool = pool
        self.row_counts = tuple(row_counts)  # ascending
        self.contexts = contexts(model) or (max_length,)  # ascending
        self.encoder = Encoder(model, pool) if model.config.is_encoder_decoder else None
        # Padding, and drafts past a request's end, may stand beyond the context. Nothing of theirs is kept, but
        # a position table would end before them, and some rotary scalings would change for all rows.
        self._last_position = max_length - 1
        self._forward = forward or forward_for(model, pool, self._last_position)
        self._hosting: Forward | None = None  # the same, keeping what heads read

    def host(self) -> None:
        """Take up the heads whose layers have been added to the pool: another forward keeps their context."""
        self._hosting = forward_for(self.model, self.pool, self._last_position, keeps=True)
        self._hosting.prepare()

    def forward_of(self, sequences: Iterable[CachedSequence]) -> Forward:
        """What runs rows of some sequences: more is computed only if it is kept for one of them."""
        keeps = self._hosting is not None and any(sequence.has_guests for sequence in sequences)
        return self._hosting if keeps and self._hosting is not None else self._forward

    def source(self, request: Request) -> Source | None:
        """The source of a request, as far as it is known; None where none is read."""
        if self.encoder is None:
            return None
        return Source(self.encoder, self.pool, request.hints.tenant, request.source)

    def pin(self, request: Request) -> int:
        """The context that a request's rows are rotated for, by number: the shortest that holds all it may reach."""
        reach = request.num_prompt_tokens + request.max_tokens
        return bisect_left(self.contexts, min(reach, self.contexts[-1]))

    def beginning(self, request: Request) -> Before:
        """What stands before the first page of a request that reads no source."""
        pin, tenant, has_guests = self.pin(request), request.hints.tenant, self.has_guests(request)
        return (tenant, pin, has_guests) if pin or has_guests else tenant

    def has_guests(self, request: Request) -> bool:
        """True if a request's forwards keep what heads read."""
        return self._hosting is not None and request.reads_hidden_states

    @property
    def max_rows(self) -> int:
        """Most rows of one forward."""
        return self.row_counts[-1]

    @property
    def is_exact_by_construction(self) -> bool:
        """True if the kernels give a row the same bits at every row count; a probe is then no more than a check."""
        return self._forward.is_exact_by_construction

    def drafting(self) -> Drafting | None:
        """What grows draft trees in one native call each; None where forwards are no native calls."""
        if not isinstance(self._forward, RecordedForward) or self.pool.states is not None:
            return None
        return self._forward.drafting(self.row_counts)

    def blank(self, num_positions: int) -> CachedSequence | None:
        """Pages to try a forward out in, behind a source where one is read; None if too few are free."""
        sequence = self.pool.reserve(num_positions)
        if sequence is None or self.encoder is None:
            return sequence
        sequence.source = self.encoder.read_sample(sample_tokens(self.model))
        if sequence.source is None:
            self.pool.release(sequence)
            return None
        return sequence

    def prepare(self) -> None:
        """Do now what would otherwise hold up the first forward of a row count."""
        self._forward.prepare()

    @torch.inference_mode()
    def forward(self, work: Sequence[TreeWork]) -> NDArray[np.float32]:
        """Logits (rows, V) of the trees' rows, in order."""
        needed = sum(len(item.tokens) - item.first for item in work)
        padded = self.row_counts[bisect_left(self.row_counts, needed)]
        return _copied(self.forward_of([item.sequence for item in work]).logits(work, padded)[:needed])

    def prefill(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Commit `tokens` to a sequence of whole pages, or an empty one, in chunks of one page."""
        for start in range(0, len(tokens), PAGE_SIZE):
            self.prefill_chunk(sequence, tokens[start : start + PAGE_SIZE])

    @torch.inference_mode()
    def prefill_chunk(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Commit `tokens`, which lie in one page: to whole pages, but where kernels are exact by construction."""
        self.forward_of([sequence]).prefill(sequence, tokens)
        sequence.length += len(tokens)

    @torch.inference_mode()
    def prefill_logits(self, sequence: CachedSequence, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Commit as `prefill_chunk` does, with the same bits; logits (tokens, V)."""
        logits = _copied(self.forward_of([sequence]).prefill_logits(sequence, tokens))
        sequence.length += len(tokens)
        return logits

    def feed_chain(self, sequence: CachedSequence, tokens: Sequence[int]) -> None:
        """Commit `tokens`, no more than a forward has rows, with the bits that they have as rows of a draft tree."""
        self.forward([TreeWork(sequence, tokens, range(-1, len(tokens) - 1))])
        sequence.advance(len(tokens))

    def read(self, sequence: CachedSequence, tokens: Sequence[int], max_missing: int) -> Sequence[int]:
        """Commit those of `tokens` that `sequence` does not hold yet but the last, up to `most` of which are returned.

        For a draft model, whose bits nothing depends on: chunks are not those of a prompt read at once.
        """
        missing = tokens[sequence.length :]
        while len(missing) > max_missing:
            room = PAGE_SIZE - sequence.length % PAGE_SIZE
            part = missing[: min(room, len(missing) - 1)]
            if room == PAGE_SIZE:
                self.prefill(sequence, part)
            else:
                self.feed_chain(sequence, part)
            missing = missing[len(part) :]
        return missing


def _copied(logits: torch.Tensor) -> NDArray[np.float32]:
    """Float32 on the host. By numpy: PyTorch shares a copy among threads, and each waits for all."""
    return logits.to("cpu", torch.float32).numpy().copy()  # type: ignore[no-any-return]


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
        source, pool, num_tokens = self.decoder.source(request), self.decoder.pool, len(request.tokens) - 1
        before: Before | None = self.decoder.beginning(request)
        if source is not None:
            source.find()
            before = source.before
        if before is None:
            return len(request.source) + num_tokens
        found = pool.resumable(pool.prefixes.search(before, request.tokens[:-1]))
        return num_tokens - PAGE_SIZE * len(found)

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

    def free(self, request: Request) -> None:
        """See `Target`."""
        cache = self._caches.pop(request.id, None)
        if cache is not None:
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
