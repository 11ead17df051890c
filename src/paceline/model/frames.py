"""One forward's rows for the native attention: what is fed, and the `Frame` that says what each row may see.

The same rows as in rows.py, without its padding: those kernels take any number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.model.pool import CachedSequence
from paceline.model.rows import TreeWork, paths_of
from paceline.native.frame import Frame, FrameSequence


class Fed(NamedTuple):
    """What a model is given: token ids and positions, (R,) int64 each."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]


def set_trees(frame: Frame, work: Sequence[TreeWork]) -> Fed:
    """Make `frame` the rows of several trees, each tree's from its `first` on; at most 64 rows a tree.

    Row i of a tree is stored at position `length + i` of its sequence, whatever its depth.
    """
    tokens: list[int] = []
    positions: list[int] = []
    found = []
    for item in work:
        committed = item.sequence.length
        paths = paths_of(item.parents)[item.first :]
        drafts = item.sequence.slots_from(committed, len(item.tokens))
        own = [committed + len(path) - 1 for path in paths]
        found.append(FrameSequence(item.sequence.pages, committed, own, drafts[item.first :], drafts, paths))
        tokens += item.tokens[item.first :]
        positions += own
    frame.set(found)
    return Fed(np.array(tokens, np.int64), np.array(positions, np.int64))


def set_chunk(frame: Frame, sequence: CachedSequence, tokens: Sequence[int]) -> Fed:
    """Make `frame` the next rows of a prompt, any number of them, after the sequence's committed positions."""
    start, end = sequence.length, sequence.length + len(tokens)
    positions = range(start, end)
    frame.set([FrameSequence(sequence.pages, end, positions, sequence.slots_from(start, len(tokens)))])
    return Fed(np.array(tokens, np.int64), np.array(positions, np.int64))
