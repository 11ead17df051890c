"""One prompt's pictures: where they stand, what tells them from others, and what the towers made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from paceline.errors import RequestError
from paceline.text.processor import Picture, PicturedIds


class Features(NamedTuple):
    """What towers made of pictures, piece by piece: (n, D), and what the first layers add to it, (n, D) each."""

    embeddings: torch.Tensor
    by_layer: tuple[torch.Tensor, ...] = ()


class Placed(NamedTuple):
    """Where a prompt's tokens stand, as its model has it."""

    positions: NDArray[np.int64]  # (1 or 3, T) rotary
    offset: int  # how far those of tokens behind it are from their places
    blocks: tuple[range, ...] = ()  # places whose tokens see each other


class SeenPrompt:
    """The pictures of a prompt, shared by all its samples. The engine's thread makes their features, once."""

    def __init__(self, given: PicturedIds, token_id: int, placed: Placed) -> None:
        self.pictures = given.pictures
        self.length = len(given.ids)
        self.positions, self.offset, self.blocks = placed
        is_piece = np.array(given.ids, np.int64) == token_id
        self.pieces = np.where(is_piece, np.cumsum(is_piece) - 1, -1)  # (T,) the piece at each place; -1: none
        self.keys = list(_keys(given.ids, is_piece.tolist(), given.pictures))
        self.features: Features | None = None
        self._check_blocks()

    def _check_blocks(self) -> None:
        """Refuse a block of two pictures: the first one's pages would depend on the second."""
        picture = np.repeat(np.arange(len(self.pictures)), [one.num_tokens for one in self.pictures])
        for block in self.blocks:
            pieces = self.pieces[block.start : block.stop]
            if len(set(picture[pieces[pieces >= 0]].tolist())) > 1:
                raise RequestError("two pictures stand side by side; allowed for this model: text between them")

    def places(self, start: int, count: int) -> NDArray[np.int64]:
        """(1 or 3, count) rotary positions from place `start` on, also behind the prompt."""
        where = np.arange(start, start + count)
        within = self.positions[:, np.minimum(where, self.length - 1)]
        return np.where(where < self.length, within, where + self.offset)

    def end_of_chunk(self, start: int, end: int) -> int:
        """The end nearest to `end` of a chunk from `start` on that holds no block but whole, or the rest of one."""
        for block in self.blocks:
            if block.start < end < block.stop:
                return block.start if start < block.start else block.stop
        return end

    @property
    def longest_block(self) -> int:
        """Places of its longest block."""
        return max(map(len, self.blocks), default=0)

    def last_seen(self, start: int, count: int) -> list[int]:
        """(count,) the last place that each from `start` on sees: its own, or that of its block."""
        seen = list(range(start, start + count))
        for block in self.blocks:
            for place in range(max(block.start, start), min(block.stop, start + count)):
                seen[place - start] = block.stop - 1
        return seen

    def is_to_be_seen(self, start: int) -> bool:
        """Whether there are pieces from place `start` on, and no features yet."""
        return self.features is None and bool((self.pieces[start:] >= 0).any())

    def pieces_at(self, start: int, count: int) -> NDArray[np.int64]:
        """(count,) the piece at each place from `start` on, also behind the prompt; -1: none."""
        found = self.pieces[start : start + count]
        return np.pad(found, (0, count - len(found)), constant_values=-1)


def _keys(ids: Sequence[int], is_piece: Sequence[bool], pictures: Sequence[Picture]) -> Iterator[int]:
    """The tokens, with a digest of the picture in place of those that stand for one. No digest is a token."""
    digests = (digest for picture in pictures for digest in [_digest(picture.inputs)] * picture.num_tokens)
    for token, is_one in zip(ids, is_piece, strict=True):
        yield next(digests) if is_one else token


def _digest(inputs: Mapping[str, Any]) -> int:
    """A negative number that tells pictures apart by all that towers read of them."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(inputs):
        value = torch.as_tensor(inputs[name]).contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return -1 - int.from_bytes(found.digest(), "little")
