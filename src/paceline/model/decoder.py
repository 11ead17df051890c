"""A model over the pages of its pool: forwards over rows, at the row counts that share their bits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from paceline.engine.request import Request
from paceline.model.forward import Forward, RecordedForward, forward_for
from paceline.model.inspect import sample_tokens
from paceline.model.interest import Interest
from paceline.model.pictures.forward import PictureForward, forward_with_pictures
from paceline.model.pictures.towers import Towers
from paceline.model.pool import CachedSequence, PagePool
from paceline.model.prefix import PAGE_SIZE, Before
from paceline.model.rotary import contexts
from paceline.model.rows import TreeWork
from paceline.model.seq2seq.encoder import Encoder
from paceline.model.seq2seq.sources import Source
from paceline.native.drafting import Drafting


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
        self.interest = Interest()
        self._showing: PictureForward | None = None  # the same, for chunks of prompts with pictures
        self.towers: Towers | None = None  # set where pictures may be shown

    def host(self) -> None:
        """Take up the heads whose layers are in the pool now: another forward keeps their context."""
        self._hosting = (
            forward_for(self.model, self.pool, self._last_position, keeps=True) if self.pool.guests else None
        )
        if self._hosting is not None:
            self._hosting.prepare()

    def forward_of(self, sequences: Iterable[CachedSequence]) -> Forward:
        """What runs rows of some sequences: more is computed only if it is kept for one of them."""
        keeps = self._hosting is not None and any(sequence.has_guests for sequence in sequences)
        return self._hosting if keeps and self._hosting is not None else self._forward

    def _reading(self, sequence: CachedSequence) -> Forward:
        """What runs a sequence's next chunk: of a prompt with pictures, another forward, made for the first of them."""
        prompt = sequence.pictures
        if prompt is None or sequence.length >= prompt.length:
            return self.forward_of([sequence])
        if self._showing is None or prompt.longest_block > self._showing.max_rows:
            assert self.towers is not None, "who made the prompt"
            self._showing = forward_with_pictures(self.towers, self.pool, self._last_position, self._forward, prompt)
        return self._showing

    def look(self, sequence: CachedSequence) -> bool:
        """Have the towers see the pictures of a sequence's prompt, if they have to and have not; whether they did."""
        prompt = sequence.pictures
        if self.towers is None or prompt is None or not prompt.is_to_be_seen(sequence.length):
            return False
        self.towers.features(prompt)
        return True

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
        return self._beginning(request, self.has_guests(request))

    def has_guests(self, request: Request) -> bool:
        """True if a request's forwards keep what heads read."""
        if self._hosting is None or not request.reads_hidden_states or request.pictures is not None:
            return False
        return self.interest.decide(request.id, partial(self._share_known, request))

    def _beginning(self, request: Request, has_guests: bool) -> Before:
        pin, tenant = self.pin(request), request.hints.tenant
        return (tenant, pin, has_guests) if pin or has_guests else tenant

    def _share_known(self, request: Request, has_guests: bool) -> float:
        """Of a request's tokens, those that the prefix cache has in pages with what heads read, or without it."""
        found = self.pool.prefixes.search(self._beginning(request, has_guests), request.tokens)
        return PAGE_SIZE * len(found) / len(request.tokens)

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
        self._reading(sequence).prefill(sequence, tokens)
        sequence.length += len(tokens)

    @torch.inference_mode()
    def prefill_logits(self, sequence: CachedSequence, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Commit as `prefill_chunk` does, with the same bits; logits (tokens, V)."""
        logits = _copied(self._reading(sequence).prefill_logits(sequence, tokens))
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
