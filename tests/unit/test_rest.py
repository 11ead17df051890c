"""What a pacer does while nobody decodes, and at the end; its failures are nobody's."""

from __future__ import annotations

import pytest

from paceline.engine.engine import Engine
from paceline.engine.thread import EngineThread
from paceline.pacing import FixedPacer
from paceline.testing import WrappedPacer
from unit.stepped import SteppedTarget, until


class Watched(WrappedPacer):
    """Counts its rests, and fails at each if it is to."""

    def __init__(self, fails: bool) -> None:
        super().__init__(FixedPacer(0))
        self.fails, self.rests, self.closes = fails, 0, 0

    def rest(self) -> None:
        self.rests += 1
        if self.fails:
            raise OSError("the disk is full")

    def close(self) -> None:
        self.closes += 1
        if self.fails:
            raise OSError("the disk is full")


@pytest.mark.parametrize("fails", [False, True])
def test_a_pacer_rests_while_nobody_decodes_and_is_closed_once(fails: bool) -> None:
    thread, pacer = EngineThread(), Watched(fails)
    thread.engine = Engine(SteppedTarget(), pacer)
    assert thread.call(lambda: 7) == 7
    until(lambda: pacer.rests == 1)
    assert thread.call(lambda: 8) == 8
    until(lambda: pacer.rests == 2)
    assert pacer.closes == 0
    thread.stop()
    assert pacer.closes == 1
    thread.stop()
    assert pacer.closes == 1
