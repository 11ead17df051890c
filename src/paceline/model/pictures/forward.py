"""Forwards over chunks of prompts with pictures: recorded, and by the model's own modules.

All other rows are those of the forwards in model/forward.py, whose bits these rows share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from transformers import PreTrainedModel

from paceline.model.forward import Forward, ModuleForward, RecordedForward
from paceline.model.interface import ForwardStep, run_rows
from paceline.model.pictures.prompt import Features, SeenPrompt
from paceline.model.pictures.showing import Shown, install, shown
from paceline.model.pictures.towers import Towers
from paceline.model.pool import CachedSequence, PagePool
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import Rows
from paceline.native.library import Library, library
from paceline.native.program import Program
from paceline.native.scaling import ScaledProgram


class Screen:
    """What rows are shown, in memory that stays where it is; D features, one or three axes of positions."""

    def __init__(self, model: PreTrainedModel, first: SeenPrompt, features: Features) -> None:
        self.size = PAGE_SIZE * max(1, -(-first.longest_block // PAGE_SIZE))  # rows at most
        width = features.embeddings.shape[1]
        self._is_piece = torch.zeros(self.size, dtype=torch.bool, device=model.device)
        self._positions = torch.zeros(len(first.positions), self.size, dtype=torch.int64, device=model.device)
        self._embeddings, *self._by_layer = (
            torch.zeros(self.size, width, dtype=model.dtype, device=model.device)
            for _ in range(1 + len(features.by_layer))
        )

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of it."""
        return [self._is_piece, self._embeddings, *self._by_layer, self._positions]

    def positions(self, num_rows: int) -> torch.Tensor:
        """(R,) or (3, R) rotary positions of the rows."""
        return self._positions[:, :num_rows] if len(self._positions) > 1 else self._positions[0, :num_rows]

    def rows(self, num_rows: int) -> Shown:
        """What the first rows are shown."""
        layers = tuple(part[None, :num_rows] for part in self._by_layer)
        return Shown(self._is_piece[None, :num_rows], self._embeddings[None, :num_rows], layers)

    def set_chunk(self, towers: Towers, sequence: CachedSequence, count: int) -> None:
        """Show the next `count` tokens of a sequence; rows behind them are padding."""
        prompt, start = sequence.pictures, sequence.length
        assert prompt is not None
        features = towers.features(prompt)
        pieces = torch.from_numpy(prompt.pieces_at(start, count))
        where = torch.nonzero(pieces >= 0)[:, 0].to(self._is_piece.device)
        wanted = pieces[pieces >= 0].to(features.embeddings.device)
        self._is_piece.zero_()[where] = True
        sources = [features.embeddings, *features.by_layer]
        for buffer, source in zip([self._embeddings, *self._by_layer], sources, strict=True):
            buffer[where] = source[wanted]
        self._positions[:, :count] = torch.from_numpy(prompt.places(start, count))
        self._positions[:, count:] = self._positions[:, count - 1 : count]


class PictureForward(Forward, Protocol):
    """A forward that shows pictures."""

    @property
    def max_rows(self) -> int:
        """Most rows of a chunk."""


@torch.inference_mode(False)  # a recording takes inference tensors' operations apart in another way
def forward_with_pictures(
    towers: Towers, pool: PagePool, last_position: int, like: Forward, first: SeenPrompt
) -> PictureForward:
    """What runs chunks of prompts with pictures, beside `like`, which runs all others; `first` is one of them."""
    features = towers.features(first)
    screen = Screen(towers.model, first, features)
    install(towers.model, len(features.by_layer))
    if isinstance(like, RecordedForward):
        found = library()
        assert found is not None, "something has been recorded"
        return _Recorded(towers, screen, pool, last_position, found)
    return _ByModules(towers, screen, pool, last_position)


class _Recorded(RecordedForward):
    def __init__(self, towers: Towers, screen: Screen, pool: PagePool, last_position: int, found: Library) -> None:
        self._towers, self._screen = towers, screen
        super().__init__(towers.model, pool, last_position, found, most=screen.size)

    @property
    def max_rows(self) -> int:
        return self._screen.size

    def _feed_chunk(self, sequence: CachedSequence, tokens: Sequence[int]) -> Program | ScaledProgram:
        self._screen.set_chunk(self._towers, sequence, len(tokens))
        return super()._feed_chunk(sequence, tokens)

    @property
    def _inputs(self) -> list[torch.Tensor]:
        return [*super()._inputs, *self._screen.tensors]

    def _run(self, step: ForwardStep, num_rows: int) -> torch.Tensor:
        tokens, pins = self._tokens[:num_rows], self._pins[:num_rows] if self._is_pinned else None
        with shown(self._screen.rows(num_rows)):
            return run_rows(self._model, step, tokens, self._screen.positions(num_rows), pinned=pins)


class _ByModules(ModuleForward):
    def __init__(self, towers: Towers, screen: Screen, pool: PagePool, last_position: int) -> None:
        super().__init__(towers.model, pool, last_position)
        self._towers, self._screen = towers, screen

    @property
    def max_rows(self) -> int:
        return self._screen.size

    def _run_chunk(self, model: PreTrainedModel, sequence: CachedSequence, tokens: Sequence[int]) -> torch.Tensor:
        self._screen.set_chunk(self._towers, sequence, len(tokens))
        with shown(self._screen.rows(PAGE_SIZE)):
            return super()._run_chunk(model, sequence, tokens)

    def _positions(self, rows: Rows) -> torch.Tensor:
        return self._screen.positions(len(rows))
