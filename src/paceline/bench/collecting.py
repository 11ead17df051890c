"""What collecting the report's measures adds to decoding: the margin of each token, and the record of each step."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from paceline.bench.timing import Contender, interleave
from paceline.engine.trace import StepRecord
from paceline.engine.tree import DraftTree
from paceline.sampling.noise import largest

_CALLS = 100  # per timing, to be well above the clock's grain
_ROUNDS = 31
_TREE = DraftTree()


def collecting_seconds(vocab_size: int) -> float:
    """Seconds that a plain step takes longer for them: the second best beside the best, and one record."""
    row = np.random.default_rng(0).normal(size=vocab_size).astype(np.float32)
    trace: list[StepRecord] = []

    def best() -> None:
        row[largest(row, 1)].tolist()

    def best_margin_and_record() -> None:
        first, second = row[largest(row, 2)].tolist()
        trace.append(StepRecord(_TREE, (), 1, 0.0, 0.0, first - second))

    spent = interleave([_repeated("best", best), _repeated("all", best_margin_and_record)], _ROUNDS)
    return (median(spent["all"]) - median(spent["best"])) / _CALLS


def _repeated(name: str, once: Callable[[], None]) -> Contender:
    def run() -> None:
        for _ in range(_CALLS):
            once()

    return Contender(name, run)
