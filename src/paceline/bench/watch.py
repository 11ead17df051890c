"""How long drafting and pacing take beside the draft model's forwards, step by step. It changes no decision."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from paceline.engine.ports import Ask, Budget, Pacer, StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.model.decoder import Decoder
from paceline.testing import WrappedPacer


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


class WatchedPacer(WrappedPacer):
    """A pacer as it is, with a list of what its steps took."""

    def __init__(self, inner: Pacer, meter: Meter) -> None:
        super().__init__(inner)
        self.steps: list[HostStep] = []
        self._meter = meter
        self._modelled = 0.0  # seconds of this step's forwards while drafting

    def draft(self, requests: Sequence[Request], budget: Budget, ask: Ask) -> list[DraftTree]:
        """See `Pacer`."""
        before = self._meter.seconds
        trees = super().draft(requests, budget, ask)
        self._modelled = self._meter.seconds - before
        return trees

    def observe(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `Pacer`."""
        super().observe(outcomes, times)
        seconds = times.scoring - times.drafting + time.perf_counter() - times.observing - self._modelled
        self.steps.append(HostStep(sum(len(outcome.tree) + 1 for outcome in outcomes), seconds))
