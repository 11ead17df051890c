"""What rows see of their sources: all of it, whatever the row. Every row stands at its source's last position.

So the attention that is causal over a target, asked from there, has the whole source before it: the same arithmetic,
a function of the source's keys and their number alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from paceline.model.pool import CachedSequence
from paceline.model.prefix import PAGE_SIZE
from paceline.model.rows import TAIL, Blocks, Ints, Rows, TreeWork, assemble
from paceline.native.frame import Frame, FrameSequence

Looking = tuple[CachedSequence, int]  # a source, and how many rows look at it


def looking(work: Sequence[TreeWork]) -> list[Looking]:
    """The sources of some trees' rows, in order."""
    return [(source_of(item.sequence), len(item.tokens) - item.first) for item in work]


def source_of(sequence: CachedSequence) -> CachedSequence:
    """The source of a sequence.

    Raises:
        RuntimeError: it has none, or one that has not been read.
    """
    if sequence.source is None or sequence.source.length == 0:
        raise RuntimeError("a sequence whose source has not been read")
    return sequence.source


def set_sources(frame: Frame, work: Sequence[Looking]) -> None:
    """Make `frame` the rows of a forward as they look at their sources. Nothing is stored by it."""
    frame.set([FrameSequence(s.pages, s.length, [s.length - 1] * count, [0] * count) for s, count in work])


def source_rows(work: Sequence[Looking], num_rows: int, device: torch.device) -> Rows:
    """The same as index tensors; rows beyond those of `work` see one place of page 0."""
    blocks = Blocks()
    positions: list[int] = []
    tails: list[Ints] = []
    for number, (source, count) in enumerate(work):
        last = source.length - 1
        tail = _tail(source)
        for _ in range(count):
            blocks.add(len(positions), number, last // PAGE_SIZE, source.pages)
            positions.append(last)
            tails.append(tail)
    for _ in range(num_rows - len(positions)):
        blocks.add(len(positions), len(work), 0, np.zeros(1, np.int64))
        positions.append(0)
        tails.append(np.zeros(TAIL, np.int64))
    nothing = np.zeros(num_rows, np.int64)
    return assemble([0] * num_rows, positions, nothing, 1, np.stack(tails), blocks, [], device)


def _tail(source: CachedSequence) -> Ints:
    """(128,) slots of the source's last two tiles; that of its last position where there is none."""
    first = ((source.length - 1) // PAGE_SIZE - 1) * PAGE_SIZE
    places = np.arange(first, first + TAIL, dtype=np.int64)
    return source.slots(np.where((places >= 0) & (places < source.length), places, source.length - 1))
