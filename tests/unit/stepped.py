"""A target whose forwards wait until the test lets them go: what happens between two steps is no matter of luck."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np

from paceline import LLM
from paceline.testing import ScriptedTarget

VOCAB = 7


class SteppedTarget(ScriptedTarget):
    """Counts upwards; each forward takes one `let`."""

    def __init__(self, **options) -> None:
        super().__init__(lambda history: np.eye(VOCAB)[(history[-1] + 1) % VOCAB] * 9, VOCAB, **options)
        self._gate = threading.Semaphore(0)
        self.waits = threading.Event()  # a forward is waiting
        self.before = lambda: None  # done in each forward, in the engine's thread

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self._gate.release()

    def score(self, work):
        self.waits.set()
        assert self._gate.acquire(timeout=60), "nobody let the forward go"
        self.waits.clear()
        self.before()
        return super().score(work)


def counted(first: int, count: int) -> list[int]:
    """What the target says after a prompt that ends with `first`."""
    return [(first + 1 + k) % VOCAB for k in range(count)]


def has_mail(llm: LLM) -> None:
    """Return when somebody has handed the engine's thread a request that it has not looked at."""
    until(lambda: not llm._runtime.thread._inbox.empty())


def let_join(llm: LLM, target: SteppedTarget, count: int) -> None:
    """Let a forward go for whoever waits to join, until so many requests run together: none is used up before."""
    while target.num_held < count:
        has_mail(llm)
        target.let()
        until(lambda: llm._runtime.thread._inbox.empty())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.001)
