"""Frames described natively: the tables that Python writes, and nothing that a kernel must not follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.model.frames import set_trees
from paceline.model.pool import CachedSequence
from paceline.model.rows import TreeWork, paths_of
from paceline.native.frame import Frame, FrameSequence
from paceline.native.layout import PAGE
from paceline.native.library import library

pytestmark = pytest.mark.skipif(library() is None, reason="there are no native kernels")
NUM_PAGES = 30


def work_of(rng: np.random.Generator, num_rows: int) -> TreeWork:
    """A random tree of so many rows and more that were fed before, somewhere in a sequence."""
    size = min(num_rows + int(rng.integers(0, 9)), PAGE)
    parents = [int(rng.integers(-1, i)) for i in range(size)]
    length = int(rng.integers(0, 600))
    pages = rng.permutation(NUM_PAGES)[: (length + size) // PAGE + 1]
    return TreeWork(CachedSequence(pages, length), rng.integers(0, 99, size).tolist(), parents, size - num_rows)


def described(frame: Frame) -> list[int]:
    """The header but for addresses, and the table as far as Python wrote it."""
    return frame._header[[0, 1, 3, 4, 6]].tolist()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 9999), st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_the_tables_are_those_that_python_writes(seed: int, rows: list[int]) -> None:
    rng = np.random.default_rng(seed)
    work = [work_of(rng, count) for count in rows]
    native, plain = Frame(library(), NUM_PAGES), Frame(library(), NUM_PAGES)
    fed = set_trees(native, work)
    sequences = []
    for item in work:
        paths = paths_of(item.parents)[item.first :]
        own = [item.sequence.length + len(path) - 1 for path in paths]
        drafts = item.sequence.slots_from(item.sequence.length, len(item.tokens))
        sequences.append(
            FrameSequence(item.sequence.pages, item.sequence.length, own, drafts[item.first :], drafts, paths)
        )
    table = plain._fill(sequences)
    plain.set(sequences)
    assert native._table[: len(table)].tolist() == table
    assert described(native) == described(plain)
    assert fed.positions.tolist() == [position for one in sequences for position in one.positions]
    assert fed.tokens.tolist() == [token for item in work for token in item.tokens[item.first :]]


UNSOUND = {
    "a page beyond the pool": lambda: TreeWork(CachedSequence(np.array([NUM_PAGES])), [1], [-1]),
    "a negative page": lambda: TreeWork(CachedSequence(np.array([-1])), [1], [-1]),
    "its own parent": lambda: TreeWork(CachedSequence(np.array([1])), [1, 2], [-1, 1]),
    "a parent that comes later": lambda: TreeWork(CachedSequence(np.array([1])), [1, 2], [1, -1]),
    "a parent below the root": lambda: TreeWork(CachedSequence(np.array([1])), [1], [-2]),
    "more rows than pages hold": lambda: TreeWork(CachedSequence(np.array([1]), 60), [1] * 5, range(-1, 4)),
    "more rows than a tree may have": lambda: TreeWork(CachedSequence(np.arange(9)), [1] * 65, range(-1, 64)),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_what_would_lead_a_kernel_astray_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"page|rows behind"):
        set_trees(Frame(library(), NUM_PAGES), [UNSOUND[name]()])
