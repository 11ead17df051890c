"""A prompt with pictures, as an engine knows it: token ids, and what its target makes of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Pictures(Protocol):
    """The pictures in a request's prompt, as its target knows them."""

    @property
    def keys(self) -> Sequence[int]:
        """The prompt's tokens; a digest of the picture, below 0, where it stands."""


class SeenIds(list[int]):
    """Token ids of a prompt, and the pictures in it."""

    def __init__(self, ids: Sequence[int], pictures: Pictures) -> None:
        super().__init__(ids)
        self.pictures = pictures
