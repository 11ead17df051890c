"""What a pacer and drafters do while nobody decodes, and at the end; their failures are nobody's."""

from __future__ import annotations

import threading

import pytest

from paceline.drafters import BaseDrafter
from paceline.engine.engine import Engine
from paceline.engine.request import DraftLimits, Request
from paceline.engine.thread import EngineThread, Job
from paceline.engine.tree import EMPTY, DraftTree
from paceline.pacing import FixedPacer
from paceline.params import SamplingParams
from paceline.sampling.sampler import Sampler, SamplerContext
from paceline.testing import WrappedPacer
from paceline.text.stream import TextStream
from unit.stepped import VOCAB, SteppedTarget, until


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


class Restful(BaseDrafter):
    """Has so many things to do when nothing is decoded, and fails at each of them if it is to."""

    def __init__(self, name: str, count: int, fails: bool = False) -> None:
        self.name, self.left, self.fails, self.rests = name, count, fails, 0

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        return EMPTY

    def rest(self) -> bool:
        self.rests += 1
        self.left -= 1
        if self.fails:
            raise OSError("the disk is full")
        return self.left > 0


def asked(drafters: list[Restful]) -> Request:
    params = SamplingParams(max_tokens=3)
    law = Sampler(params, SamplerContext(VOCAB), [1, 2], 0)
    return Request([1, 2], law, TextStream(lambda ids: "", [1, 2], ()), frozenset(), drafters)


def test_drafters_go_on_while_nobody_decodes_and_stop_for_who_comes() -> None:
    thread, target = EngineThread(), SteppedTarget()
    thread.engine = Engine(target, FixedPacer(1))
    target.let(9)
    few, endless, failing = Restful("few", 5), Restful("endless", 10**9), Restful("failing", 9, fails=True)
    ended = threading.Event()
    thread.submit([Job(asked([few, endless, failing]), ended.set)])
    assert ended.wait(60)
    until(lambda: endless.rests > 50)
    assert thread.call(lambda: 7) == 7  # who comes is not kept waiting
    assert few.left < 0
    assert failing.rests > 5
    thread.stop()
    rests = endless.rests
    assert not thread.is_alive
    assert endless.rests == rests
