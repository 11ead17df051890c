"""A target with a fault in how it knows the sources of an encoder-decoder; all else is the target's own.

A source known by its beginning is wrong where two begin alike and then part: one's rows look at the other's keys.
"""

from __future__ import annotations

from paceline.certify.attention_faults import another_pool
from paceline.engine.request import Request
from paceline.model.decoder import Decoder
from paceline.model.hf import HFTarget
from paceline.model.prefix import PAGE_SIZE
from paceline.model.seq2seq.sources import Source


def hasty_target(target: HFTarget, cache_tokens: int) -> HFTarget:
    """A target over the same weights that knows a source by its first page, with a cache of its own."""
    own, pool = target.decoder, another_pool(target, cache_tokens)
    decoder = _HastyDecoder(own.model, pool, own.row_counts, target.max_length)
    return HFTarget(decoder, target.vocab_size, target.max_length, "sources known by their beginning", target.reads)


class _HastyDecoder(Decoder):
    def source(self, request: Request) -> Source | None:
        """See `Decoder`."""
        assert self.encoder is not None
        return _KnownByItsBeginning(self.encoder, self.pool, request.hints.tenant, request.source)


class _KnownByItsBeginning(Source):
    def _parts(self) -> list[tuple[int, ...]]:
        first, *others = super()._parts()
        return [first[:PAGE_SIZE], *others]
