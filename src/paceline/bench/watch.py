"""How long drafting and pacing take beside the draft model's forwards, step by step. It changes no decision."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paceline.engine.ports import Ask, Pacer, StepTimes, Target
from paceline.engine.request import Drafter, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.model.hf import Decoder


@dataclass
class Meter:
    """Seconds spent in forwards so far, whoever's model it was."""

    seconds: float = 0.0


@contextmanager
def forward_meter() -> Iterator[Meter]:
    """A meter of all forwards and prefills, for as long as this lasts."""
    meter = Meter()
    originals = {name: getattr(Decoder, name) for name in ("forward", "prefill")}
    for name, original in originals.items():
        setattr(Decoder, name, _metered(original, meter))
    try:
        yield meter
    finally:
        for name, original in originals.items():
            setattr(Decoder, name, original)


def _metered(method: Any, meter: Meter) -> Any:
    def run(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            meter.seconds += time.perf_counter() - started

    return run


@dataclass(frozen=True)
class HostStep:
    """One step: its rows, and the seconds of drafting, learning and pacing that were no forward of a draft model."""

    rows: int
    seconds: float


@dataclass
class WatchedPacer(Pacer):
    """A pacer as it is, with a list of what its steps took."""

    inner: Pacer
    meter: Meter
    steps: list[HostStep] = field(default_factory=list)
    _modelled: float = field(default=0.0, init=False)  # seconds of this step's forwards while drafting

    def attach(self, drafter: Drafter, target: Target) -> None:
        """See `Pacer`."""
        self.inner.attach(drafter, target)

    def start(self, request: Request, prefill: float) -> None:
        """See `Pacer`."""
        self.inner.start(request, prefill)

    def draft(self, requests: Sequence[Request], most: int, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        before = self.meter.seconds
        trees = self.inner.draft(requests, most, ask)
        self._modelled = self.meter.seconds - before
        return trees

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        self.inner.observe(outcomes, times)
        seconds = times.scoring - times.drafting + time.perf_counter() - times.observing - self._modelled
        self.steps.append(HostStep(sum(len(outcome.tree) + 1 for outcome in outcomes), seconds))

    def finish(self, request: Request) -> None:
        """See `Pacer`."""
        self.inner.finish(request)
