"""The sources of requests: found in the prefix cache, or read.

A source is known as a whole, to its tenant alone: its first page by all its tokens, the others by the page before
them. Pages of a target are known behind its source's last one, so that what was decoded from one source is never
found for another.
"""

from __future__ import annotations

from collections.abc import Sequence

from paceline.model.pool import CachedSequence, PagePool
from paceline.model.prefix import PAGE_SIZE, Before
from paceline.model.seq2seq.encoder import Encoder

_NOTHING: tuple[int, ...] = ()  # what a source's later pages are known by: no page of a target holds nothing


class Source:
    """One request's source: its pages, and what stands before its target's first page once it has been read."""

    def __init__(self, encoder: Encoder, pool: PagePool, tenant: str, tokens: Sequence[int]) -> None:
        self.tokens = tuple(tokens)
        self.before: Before | None = None
        self._encoder, self._pool, self._tenant = encoder, pool, tenant

    @property
    def num_unread(self) -> int:
        """Tokens of it that are still to be read: all or none."""
        return len(self.tokens) if self.before is None else 0

    def reserve(self) -> CachedSequence | None:
        """Its pages, filled if the prefix cache had them all; None if too few are free."""
        pages = self.find()
        sequence = self._pool.reserve(len(self.tokens), pages)
        if sequence is not None:
            sequence.length = len(self.tokens) if pages else 0
        return sequence

    def read(self, sequence: CachedSequence) -> None:
        """Fill its pages, or take those that another request has filled by now."""
        pages = self.find()
        if pages:
            sequence.length = len(self.tokens)
        else:
            self._encoder.read(sequence, self.tokens)
        before: Before = self._tenant
        for index, part in enumerate(self._parts()):
            page, before = self._pool.prefixes.enter(before, part, int(sequence.pages[index]))
            self._pool.share(sequence, index, page)
        self.before = before

    def find(self) -> list[int]:
        """The pages that hold it; none if any of them is missing."""
        pages: list[int] = []
        before: Before = self._tenant
        for part in self._parts():
            known = self._pool.prefixes.known(before, part)
            if known is None:
                return []
            page, before = known
            pages.append(page)
        self.before = before
        return pages

    def _parts(self) -> list[tuple[int, ...]]:
        return [self.tokens, *([_NOTHING] * ((len(self.tokens) - 1) // PAGE_SIZE))]
