"""The store: a ring of tokens. The oldest text is written over, unless it has been of use.

Every text begins a granule of its own, and a granule has one owner, so that nothing of one tenant's is found for
another. Granules from which something was accepted get a second chance (the CLOCK rule; their text is written again
at the front), so what never drafted anything goes first. All memory is set aside at the start and used as it fills.
"""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._store.index import BYTES_PER_PLACE, ORDERS, ChainIndex
from paceline.drafters._store.pages import zeros

GRANULE = 128  # tokens
BYTES_PER_TOKEN = 4 + BYTES_PER_PLACE + 9 / GRANULE  # a granule has an owner (8 bytes) and its uses (1)
MAX_PIECE = 4096  # longer texts are stored in pieces
MAX_HITS = 16  # places looked at for one proposal: the newest of the longest agreement
ENOUGH = 6  # of a longer agreement, to leave out shorter ones
MAX_HOPS = 32  # along one chain
LONGEST = 32  # agreement is not measured further
SECOND_CHANCES = 4  # granules saved per granule written, so that adding never takes long

# A place where the context stood before, and how many tokens agree before it, at least: a power of two. Plain tuples,
# since dozens are made for every proposal.
Hit = tuple[int, int]


@dataclass(frozen=True)
class Texts:
    """Many texts, oldest first: what a store holds, as arrays."""

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    owners: NDArray[np.int64]

    def __iter__(self) -> Iterator[tuple[NDArray[np.int32], int]]:
        """(tokens, owner) of each text."""
        ends = np.cumsum(self.lengths, dtype=np.int64).tolist()
        for end, length, owner in zip(ends, self.lengths.tolist(), self.owners.tolist(), strict=True):
            yield self.tokens[end - length : end], owner

    @classmethod
    def of(cls, pairs: Sequence[tuple[NDArray[np.int32], int]]) -> Texts:
        """From (tokens, owner) of each text."""
        tokens = np.concatenate([np.zeros(0, np.int32), *(text for text, _ in pairs)])
        lengths = np.array([len(text) for text, _ in pairs], np.int32)
        return cls(tokens, lengths, np.array([owner for _, owner in pairs], np.int64))


def owner_key(name: str, salt: bytes) -> int:
    """What stands for a tenant in a store and its file; without the salt it cannot be found from the name."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


class TextStore:
    """Texts of tokens in at most `max_bytes`, and what followed a suffix in one owner's texts."""

    def __init__(self, max_bytes: int) -> None:
        num_granules = max(int(max_bytes / BYTES_PER_TOKEN) // GRANULE, 2)
        self.capacity = num_granules * GRANULE  # tokens
        self._stored = zeros(self.capacity, np.int32)  # token + 1; 0 is no token
        self._owners = np.zeros(num_granules, np.int64)  # 0 is nobody
        self._uses = np.zeros(num_granules, np.uint8)
        self._index = ChainIndex(self.capacity)
        self._end = 0  # where the next text begins, or the capacity
        self._view, self._bytes = self._stored.data, self._stored.data.cast("B")
        self._owner_view = self._owners.data
        self._max_piece = min(MAX_PIECE, self.capacity // 2 - 1)

    @property
    def num_bytes(self) -> int:
        """Memory set aside; all that a store ever takes."""
        return self._stored.nbytes + self._owners.nbytes + self._uses.nbytes + self._index.num_bytes

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been stored yet."""
        return self._end == 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._stored))

    def add(self, tokens: Sequence[int] | NDArray[np.int32], owner: int) -> None:
        """Store a text of an owner (not 0), in pieces if it is long; what is too short to draft from is left out."""
        stored = np.asarray(tokens, np.int32) + 1
        saved: list[tuple[NDArray[np.int32], int, int]] = []
        for first in range(0, len(stored), self._max_piece):
            saved += self._write(stored[first : first + self._max_piece], owner, 0)
        room = SECOND_CHANCES * _granules(len(stored))
        while saved and room > 0:
            text, text_owner, uses = saved.pop(0)
            room -= _granules(len(text))
            saved += self._write(text, text_owner, uses // 2)

    def find(self, context: Sequence[int], owner: int, min_match: int = 2) -> list[Hit]:
        """Where the end of the context stood before in the owner's texts: the longest agreement, the newest first."""
        after = [token + 1 for token in context[-LONGEST:]]
        wanted = array("i", after).tobytes()
        hits: dict[int, int] = {}  # place -> agreement
        for order, newest, previous in self._index.chains(after, owner):
            min_length = max(order, min_match)
            if newest and len(after) >= min_length:
                for place in self._walk(newest, previous, wanted[-4 * min_length :], owner):
                    if place not in hits:
                        hits[place] = self._agreement(place, order, wanted)
                    if len(hits) == MAX_HITS:
                        break
            if len(hits) >= ENOUGH or order <= min_match:
                break
        return sorted(hits.items(), key=lambda hit: -hit[1])  # stable: the newest stay first

    def token(self, place: int) -> int:
        """The token at a place; -1 behind a text's end."""
        return self._view[place] - 1

    def credit(self, hits: Sequence[Hit], token: int) -> None:
        """Something drafted from these places, beginning with `token`, was right: what says so is kept for longer."""
        for granule in {place // GRANULE for place, _ in hits if self.token(place) == token}:
            self._uses[granule] = min(int(self._uses[granule]) + 1, 255)

    def texts(self) -> Texts:
        """A copy of all that is stored, pieces as texts of their own."""
        return self.snapshot()()

    def snapshot(self) -> Callable[[], Texts]:
        """What `texts` would give now, for another thread to work out: only the copying, a few ms, is done here."""
        return functools.partial(_texts_in, self._stored.copy(), self._owners.copy(), self._end % self.capacity)

    def _walk(self, place: int, previous: memoryview, wanted: bytes, owner: int) -> Iterator[int]:
        """The owner's places along a chain that `wanted` stands before, newest first."""
        age, size, newest = -1, len(wanted), self._end - 1
        for _ in range(MAX_HOPS):
            next_age = (newest - place) % self.capacity
            if not place or next_age <= age:
                return  # no older: written over since it was linked
            age = next_age
            agrees = self._bytes[4 * place - size : 4 * place] == wanted and self._view[place]
            if agrees and self._owner_view[place // GRANULE] == owner:
                yield place
            place = previous[place]

    def _agreement(self, place: int, known: int, wanted: bytes) -> int:
        """The largest power of two of tokens before a place that agree."""
        size = 8 * known
        while size <= len(wanted) and self._bytes[4 * place - size : 4 * place] == wanted[-size:]:
            size *= 2
        return size // 8

    def _write(self, stored: NDArray[np.int32], owner: int, uses: int) -> list[tuple[NDArray[np.int32], int, int]]:
        """Write one piece and return what had to make room for it but has been of use: (stored, owner, uses)."""
        if len(stored) <= ORDERS[-1]:
            return []
        count = _granules(len(stored))
        saved = []
        if self._end + count * GRANULE > self.capacity:
            saved += self._clear(self._end // GRANULE, len(self._owners))
            self._end = 0
        first = self._end // GRANULE
        saved += self._clear(first, first + count)
        self._stored[self._end : self._end + len(stored)] = stored
        self._owners[first : first + count], self._uses[first : first + count] = owner, uses
        self._index.enter(stored, self._end, owner)
        self._end += count * GRANULE
        return saved

    def _spans(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where texts begin and end in a row of granules."""
        filled = self._stored[first * GRANULE : last * GRANULE] != 0
        edges = np.flatnonzero(np.diff(filled, prepend=False, append=False)) + first * GRANULE
        return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))

    def _clear(self, first: int, last: int) -> list[tuple[NDArray[np.int32], int, int]]:
        """Empty granules and return the texts in those that have been of use."""
        used = np.flatnonzero(self._uses[first:last])
        saved: list[tuple[NDArray[np.int32], int, int]] = []
        for run in np.split(used, np.flatnonzero(np.diff(used) != 1) + 1) if len(used) else []:
            for begin, end in self._spans(first + int(run[0]), first + int(run[-1]) + 1):
                uses = self._uses[begin // GRANULE : _granules(end - 1)]
                saved.append((self._stored[begin:end].copy(), int(self._owners[begin // GRANULE]), int(uses.max())))
        self._stored[first * GRANULE : last * GRANULE] = 0
        self._owners[first:last], self._uses[first:last] = 0, 0
        return saved


def _granules(num_tokens: int) -> int:
    """Granules for a text and the gap behind it."""
    return num_tokens // GRANULE + 1


def _texts_in(stored: NDArray[np.int32], owners: NDArray[np.int64], oldest: int) -> Texts:
    """The texts in a ring, from its oldest place on."""
    stored, owners = np.roll(stored, -oldest), np.roll(owners, -(oldest // GRANULE))
    edges = np.flatnonzero(np.diff(stored != 0, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    return Texts(stored[stored != 0] - 1, (ends - starts).astype(np.int32), owners[starts // GRANULE])
