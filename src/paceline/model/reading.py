"""How one request's tokens come into the cache: found in the prefix cache, read as its prompt, or fed as drafts were.

A page of a prompt is read in one chunk, aligned from position 0; its bits depend on that, but for kernels that are
exact by construction. What was decoded has the bits of tree rows, and is read again as such. With those kernels the
first positions of a page that parts from what is known, or that was never full, are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from paceline.engine.request import Request
from paceline.model.pool import CachedSequence
from paceline.model.prefix import LEAST_BEGUN, PAGE_SIZE, Before
from paceline.model.seq2seq.sources import Source

if TYPE_CHECKING:
    from paceline.model.decoder import Decoder
    from paceline.model.pictures.prompt import SeenPrompt


PATIENCE = 48  # positions for which a head's context is kept without its being asked: it cannot be resumed after


@dataclass(frozen=True)
class Beginning:
    """What the prefix cache has of a request: full pages with serial numbers, and first positions of one more page."""

    before: Before  # of what comes behind the full pages
    pages: list[tuple[int, int]]
    begun: tuple[int, int] = (0, 0)  # a page, and how many of its positions

    @property
    def num_positions(self) -> int:
        """Positions that need not be read."""
        return PAGE_SIZE * len(self.pages) + self.begun[1]

    @classmethod
    def find(cls, decoder: Decoder, request: Request, before: Before) -> Beginning:
        """Behind `before`. Whoever wants a prompt's logits has to read all of it."""
        if request.on_prompt_logits is not None:
            return cls(before, [])
        pool, known = decoder.pool, keys_of(request)[: _readable(decoder, request)]
        pages = pool.resumable(pool.prefixes.search(before, known))
        last = pages[-1][1] if pages else before
        if not _knows_places(decoder, request):
            return cls(last, pages)
        return cls(last, pages, pool.prefixes.begun(last, known[PAGE_SIZE * len(pages) :]))


class RequestCache:
    """The pages of a request, and how many of them, from the first on, the prefix cache knows."""

    def __init__(
        self, decoder: Decoder, request: Request, sequence: CachedSequence, before: Before, source: Source | None = None
    ) -> None:
        self.sequence = sequence
        found = 0 if source is None else len(source.tokens) - source.num_unread
        self.num_found = found + sequence.length  # positions that did not have to be read
        self._decoder, self._request = decoder, request
        self._before, self._source = before, source  # of the first page that is not known
        self._num_known = sequence.length // PAGE_SIZE  # pages

    @classmethod
    def reserve(cls, decoder: Decoder, request: Request, spare: int) -> RequestCache | None:
        """Pages for all of a request's tokens, the first of them already found; None if too few are free."""
        source = decoder.source(request)
        pages = source.reserve() if source is not None else None
        if source is not None and pages is None:
            return None
        before, pool = decoder.beginning(request) if source is None else source.before, decoder.pool
        # Behind a source that is not known nothing is.
        found = Beginning("", []) if before is None else Beginning.find(decoder, request, before)
        sequence = pool.reserve(len(request.tokens), [page for page, _ in found.pages], spare)
        if sequence is None:
            if pages is not None:
                pool.release(pages)
            return None
        sequence.source, sequence.pin = pages, decoder.pin(request)
        sequence.pictures = cast("SeenPrompt | None", request.pictures)
        sequence.kept_for = len(request.tokens) + PATIENCE if decoder.has_guests(request) else 0
        if found.begun[1]:
            pool.copy_begun(sequence, *found.begun)
        cache = cls(decoder, request, sequence, found.before, source)
        cache._restore(len(found.pages))
        return cache

    @property
    def num_unread(self) -> int:
        """Positions of the request's source and tokens that are to be read still."""
        return self._num_unread_source + len(self._request.tokens) - 1 - self.sequence.length

    @property
    def _num_unread_source(self) -> int:
        return 0 if self._source is None else self._source.num_unread

    def find_more(self) -> int:
        """Take over what others have read by now; how many positions."""
        if self._request.on_prompt_logits is not None or self._num_unread_source:
            return 0
        start = self.sequence.length
        known = self._known_ahead()
        for page in known:
            self._follow(page)
        if known:
            self.sequence.length = self._num_known * PAGE_SIZE
        self._restore(len(known))
        count = max(self.sequence.length - start, 0)
        self.num_found += count
        return count

    def _known_ahead(self) -> list[tuple[int, int]]:
        """The next pages that are known, if the sequence can go on behind them."""
        pool, end = self._decoder.pool, _readable(self._decoder, self._request)
        ahead = keys_of(self._request)[self._num_known * PAGE_SIZE : end]
        return pool.resumable(pool.prefixes.search(self._before, ahead))

    def _restore(self, num_found: int) -> None:
        """Take over the state at the end of pages that were found."""
        pool, state = self._decoder.pool, self.sequence.state
        if num_found and pool.states is not None and state is not None:
            assert isinstance(self._before, int), "a page stands before"
            pool.states.restore(state, self._before)

    def read(self, max_rows: int) -> int:
        """Read the next chunk; of how many positions. None are left if the cache holds all tokens but the last.

        Before the first piece of a picture that has to be read, the towers look at it, and no position is read.
        """
        if self._num_unread_source:
            return self._read_source()
        if self._decoder.look(self.sequence):
            return 0
        tokens, start = self._request.tokens, self.sequence.length
        end = min((start // PAGE_SIZE + 1) * PAGE_SIZE, len(tokens) - 1)
        if self._decoder.is_exact_by_construction:
            self._read_prompt(self._end_of_chunk(start, min(end, start + max_rows)))
        elif start < _readable(self._decoder, self._request):
            self._read_prompt(min(end, _readable(self._decoder, self._request)))
        elif start < end:
            count = min(max_rows, self._decoder.max_rows)
            self._decoder.feed_chain(self.sequence, tokens[start : min(end, start + count)])
        return self.sequence.length - start

    def _end_of_chunk(self, start: int, end: int) -> int:
        """Where a chunk ends so that what sees each other is read together."""
        return end if self.sequence.pictures is None else self.sequence.pictures.end_of_chunk(start, end)

    def _read_source(self) -> int:
        """Read the source, whole: each of its tokens sees all others."""
        assert self._source is not None
        assert self.sequence.source is not None
        self._source.read(self.sequence.source)
        assert self._source.before is not None
        self._before = self._source.before
        return len(self._source.tokens)

    def rewind(self, length: int) -> bool:
        """Forget all but the first positions; False where others know of them, or where states have gone on."""
        pool = self._decoder.pool
        if pool.states is not None or length < self._num_known * PAGE_SIZE:
            return False
        self.sequence.length = length
        pool.trim(self.sequence, length + 1)
        return True

    def release(self) -> None:
        """Make known what has been read, and what was decoded where it has the same bits; give the pages back."""
        if not self._num_unread_source:
            self._enter()
            self._enter_begun()
        self._decoder.pool.release(self.sequence)

    def _read_prompt(self, end: int) -> None:
        start = self.sequence.length
        chunk, tell = self._request.tokens[start:end], self._request.on_prompt_logits
        if not chunk:
            return
        if tell is None:
            self._decoder.prefill_chunk(self.sequence, chunk)
        else:
            tell(start, self._decoder.prefill_logits(self.sequence, chunk))
        self._enter()

    def _enter(self) -> None:
        """Make known the pages that are full by now; where another page holds the same, that one is shared."""
        was_known = False
        while (part := self._next_page()) is not None and self.sequence.length >= (self._num_known + 1) * PAGE_SIZE:
            page = int(self.sequence.pages[self._num_known])
            known = self._decoder.pool.prefixes.enter(self._before, part, page)
            was_known = known[0] != page
            self._follow(known)
        self._keep_state(was_known)

    def _enter_begun(self) -> None:
        """Make known the last page too, which is not full: it will not be written any more."""
        start, end = self._num_known * PAGE_SIZE, min(self.sequence.length, _readable(self._decoder, self._request))
        if start + LEAST_BEGUN <= end and _knows_places(self._decoder, self._request):
            part, page = tuple(keys_of(self._request)[start:end]), int(self.sequence.pages[self._num_known])
            self._decoder.pool.prefixes.enter(self._before, part, page)

    def _keep_state(self, was_known: bool) -> None:
        """Keep the state at the end of a page where others may go on: a prompt's last, or where prompts part.

        Two have the page that was read, and only one what comes next (as in Marconi, arXiv 2411.19379).
        """
        states, state = self._decoder.pool.states, self.sequence.state
        if states is None or state is None or not state.is_up_to_date or not isinstance(self._before, int):
            return
        if self.sequence.length != self._num_known * PAGE_SIZE:
            return
        next_page = self._next_page()
        parts = was_known and next_page and self._decoder.pool.prefixes.known(self._before, next_page) is None
        if next_page is None or parts:
            states.keep(state, self._before)

    def _next_page(self) -> tuple[int, ...] | None:
        """The tokens of the first page that is not known; None if it is not full, or has other bits than a prompt's."""
        end = (self._num_known + 1) * PAGE_SIZE
        if end > _readable(self._decoder, self._request):
            return None
        return tuple(keys_of(self._request)[end - PAGE_SIZE : end])

    def _follow(self, known: tuple[int, int]) -> None:
        page, self._before = known
        self._decoder.pool.share(self.sequence, self._num_known, page)
        self._num_known += 1


def keys_of(request: Request) -> Sequence[int]:
    """A request's tokens as the prefix cache tells them apart: a picture is known by what is in it."""
    if request.pictures is None:
        return request.tokens
    return [*request.pictures.keys, *request.tokens[request.num_prompt_tokens :]]


def _knows_places(decoder: Decoder, request: Request) -> bool:
    """True if any of a request's positions may be found: not only those where a page ends and states are kept."""
    is_text = request.pictures is None and not request.source
    return is_text and decoder.is_exact_by_construction and decoder.pool.states is None


def _readable(decoder: Decoder, request: Request) -> int:
    """Positions whose bits are those of a prompt that is read."""
    tokens = len(request.tokens) if decoder.is_exact_by_construction else request.num_prompt_tokens
    return tokens - 1
