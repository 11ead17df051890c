"""One forward's rows for the native attention: what is fed, and the `Frame` that says what each row may see.

The same rows as in rows.py, without its padding: those kernels take any number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.model.pool import CachedSequence
from paceline.model.rows import TreeWork
from paceline.native.frame import Frame, FrameSequence
from paceline.native.layout import PAGE, Draft
from paceline.native.states import StateRows


class Fed(NamedTuple):
    """What a model is given: token ids, rotary positions, pins, (R,) each; the rows as recurrent layers see them."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    pins: list[int]
    states: list[StateRows]


def set_trees(frame: Frame, work: Sequence[TreeWork]) -> Fed:
    """Make `frame` the rows of several trees, each tree's from its `first` on; at most 64 rows a tree.

    Row i of a tree is stored at position `length + i` of its sequence, whatever its depth.
    """
    tokens: list[int] = []
    pins: list[int] = []
    offsets: list[int] = []
    positions = frame.set_trees([_fed(item) for item in work])
    states: list[StateRows] = []
    for item in work:
        states += item.states(len(tokens))
        tokens += item.tokens[item.first :]
        pins += [item.sequence.pin] * (len(item.tokens) - item.first)
        offsets += [item.sequence.offset] * (len(item.tokens) - item.first)
    return Fed(np.array(tokens, np.int64), positions + offsets if any(offsets) else positions, pins, states)


def _fed(item: TreeWork) -> Draft:
    """A tree's rows as the native code takes them."""
    sequence, count = item.sequence, len(item.tokens)
    if count > PAGE or sequence.length + count > len(sequence.pages) * PAGE:
        raise ValueError(f"{count} rows behind {sequence.length} positions of {len(sequence.pages)} pages")
    fed = Draft(pages=sequence.pages.ctypes.data, length=sequence.length, num_fed=count, num_rows=count - item.first)
    fed.fed_parents[:count] = item.parents
    return fed


def set_chunk(frame: Frame, sequence: CachedSequence, tokens: Sequence[int]) -> Fed:
    """Make `frame` the next rows of a prompt, any number of them, after the sequence's committed positions."""
    start, end = sequence.length, sequence.length + len(tokens)
    positions = range(start, end)
    slots, prompt = sequence.slots_from(start, len(tokens)), sequence.pictures
    if prompt is not None and prompt.blocks:
        seen = prompt.last_seen(start, len(tokens))
        frame.set([FrameSequence(sequence.pages, end, seen, slots, owns=positions)])
    else:
        frame.set([FrameSequence(sequence.pages, end, positions, slots)])
    states = sequence.state_rows(0, range(-1, len(tokens) - 1), 0, is_kept=True)
    rotary = np.array(positions, np.int64) + sequence.offset
    return Fed(np.array(tokens, np.int64), rotary, [sequence.pin] * len(tokens), states)
