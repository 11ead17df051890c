"""Targets with a fault each in what recurrent layers keep; all else is the target's own.

A draft tree scanned as a chain is wrong where a row is not its parent's next one: its state has seen a sibling. A state
that is not restored behind a prefix leaves out all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from paceline.model.forward import ModuleForward, PoolStep
from paceline.model.pool import PagePool
from paceline.model.rows import Rows
from paceline.model.states import SequenceState, StatePool


class ChainedForward(ModuleForward):
    """The model's own modules over trees whose rows are scanned one behind the other."""

    def _step(self, rows: Rows) -> PoolStep:
        chained = [replace(item, parents=range(-1, len(item.parents) - 1)) for item in rows.states]
        return PoolStep(self._pool, replace(rows, states=chained))


class _Forgetful(StatePool):
    """States that are found, and not restored."""

    def __init__(self, inner: StatePool) -> None:
        self.__dict__ = inner.__dict__  # what is kept here is kept there

    def restore(self, state: SequenceState, serial: int) -> None:
        """See `StatePool`, but nothing is copied."""
        state.restored()


@contextmanager
def forgotten_states(pool: PagePool) -> Iterator[None]:
    """Restore no state of a prefix while a `with` lasts."""
    right = pool.states
    assert right is not None
    pool.states = _Forgetful(right)
    try:
        yield
    finally:
        pool.states = right
