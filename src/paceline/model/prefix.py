"""Prefix cache: pages of earlier prompts, found again by the tokens they hold and all that stood before them.

A full page is a function of the tokens up to its end if it was prefilled: prefill runs in chunks of one page, aligned
from position 0. So whoever begins with the same tokens reads it, and has the bits that it would have computed. A page
is known by its tokens and by the page before it, compared and not hashed; the first one by its tenant, so that not
even by timing can one tenant learn what another has asked. Where every row has the same bits however it was read, the
first positions of a page may be found too, to be copied. Knows nothing of models.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

PAGE_SIZE = 64
LEAST_BEGUN = 8  # positions of a page that is not full: fewer are what most prompts begin with, and soon read
_NUM_TRIED = 16  # pages behind one place, the newest first, of which the one that agrees longest is looked for

# What stands before a page: the serial number of the page there, or the tenant; with that of requests that are rotated
# for another context, or whose pages hold what heads read.
Before = int | str | tuple[str, int, bool]
_Key = tuple[Before, tuple[int, ...]]  # and the page's tokens


class PrefixCache:
    """Which page holds which beginning. Numbers of pages are used again; serial numbers are not."""

    def __init__(self) -> None:
        self._pages: dict[_Key, tuple[int, int]] = {}  # -> (page, its serial number)
        self._keys: dict[int, _Key] = {}  # of each page
        self._behind: defaultdict[Before, dict[int, None]] = defaultdict(dict)  # pages by what stands before, in order
        self._serials = itertools.count()

    def __contains__(self, page: int) -> bool:
        return page in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, tenant: str, tokens: Sequence[int]) -> list[int]:
        """The pages of the longest known beginning of a tenant's tokens: full ones."""
        return [page for page, _ in self.search(tenant, tokens)]

    def search(self, before: Before, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """The same behind what stands before, a tenant or a page: pages with their serial numbers."""
        found: list[tuple[int, int]] = []
        for part in _parts(tokens):
            known = self.known(before, part)
            if known is None:
                break
            found.append(known)
            before = known[1]
        return found

    def known(self, before: Before, part: tuple[int, ...]) -> tuple[int, int] | None:
        """The page that holds `part` behind `before`, and its serial number; None if none does."""
        return self._pages.get((before, part))

    def begun(self, before: Before, tokens: Sequence[int]) -> tuple[int, int]:
        """A page behind `before` whose first tokens are the next ones, and how many: the most among the newest pages.

        Page 0 and none of it where too little agrees.
        """
        newest = itertools.islice(reversed(self._behind.get(before, {})), _NUM_TRIED)
        agree = ((_num_equal(self._keys[page][1], tokens), page) for page in newest)
        count, page = max(agree, default=(0, 0))
        return (page, count) if count >= LEAST_BEGUN else (0, 0)

    def offer(self, tenant: str, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """Make known which of a sequence's pages hold `tokens`; where another page holds the same, that one stays."""
        before: Before = tenant
        for part, page in zip(_parts(tokens), pages, strict=False):
            _, before = self.enter(before, part, page)

    def enter(self, before: Before, part: tuple[int, ...], page: int) -> tuple[int, int]:
        """Make known that a page holds `part` behind `before`: the page that is known for it now, and its serial."""
        key = (before, part)
        if key not in self._pages:
            self.forget(page)  # it may be known as what stood behind a page that has been forgotten
            self._pages[key], self._keys[page] = (page, next(self._serials)), key
            self._behind[before][page] = None
        return self._pages[key]

    def forget(self, page: int) -> None:
        """A page that will hold something else. What stood behind it can no longer be found."""
        key = self._keys.pop(page, None)
        if key is not None:
            del self._pages[key]
            behind = self._behind[key[0]]
            del behind[page]
            if not behind:
                del self._behind[key[0]]

    def forget_all(self) -> None:
        """Every page. Serial numbers go on: who has one finds nothing behind it."""
        self._pages.clear()
        self._keys.clear()
        self._behind.clear()


def _num_equal(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts have in common before they part."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _parts(tokens: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Full pages of tokens, made as they are asked for: a request that waits for room looks at every step."""
    return (tuple(tokens[start : start + PAGE_SIZE]) for start in range(0, len(tokens) - PAGE_SIZE + 1, PAGE_SIZE))
