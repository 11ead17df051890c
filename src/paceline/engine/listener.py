"""Who is told what an engine does, in its own thread: metrics, traces, logs. Nothing depends on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

from paceline.engine.ports import StepTimes
from paceline.engine.request import Request, StepOutcome


class EngineListener(Protocol):
    """Is told what happens, in the engine's thread between steps: it should not take long.

    One that raises is left out from then on.
    """

    def admitted(self, request: Request) -> None:
        """A request has got its cache: its prompt is read from now on. Once more after each preemption."""

    def preempted(self, request: Request) -> None:
        """A request has given up its cache and waits for room again."""

    def stepped(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """A step is done; requests that ended with it are told of afterwards."""

    def finished(self, request: Request) -> None:
        """A request has ended, in whatever way; also one that was never admitted."""


def tell(listeners: list[EngineListener], what: Callable[[EngineListener], None]) -> None:
    """Tell all of them something; who raises is warned about and removed."""
    for listener in list(listeners):
        try:
            what(listener)
        except Exception as error:
            listeners.remove(listener)
            warnings.warn(f"a listener of the engine failed and is left out: {error!r}", stacklevel=2)
