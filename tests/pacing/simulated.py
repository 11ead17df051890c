"""A simulated clock, and a target and drafters whose time it keeps: the pacer's world without a machine's noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from law.support import Kind
from paceline.engine.engine import Engine
from paceline.engine.request import DraftLimits, Request, StepOutcome
from paceline.engine.tree import DraftTree
from paceline.pacing import AdaptivePacer, CostTable
from paceline.pacing.measuring import measure
from paceline.testing import ScriptedDrafter, ScriptedTarget

TICK = 1e-7  # seconds that pass at every look at the clock


class Clock:
    """Seconds that pass when something takes them, and a little at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TICK
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Costs:
    """Seconds of a forward: `base * (1 + per_row * (rows - 1) + per_position * context)`, times noise and a jump."""

    base: float = 1e-2
    per_row: float = 0.05
    per_position: float = 0.0
    noise: float = 0.0  # standard deviation of the logarithm
    jump: float = 1.0  # factor from forward number `jump_at` on
    jump_at: int = 10**9
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    num_forwards: int = 0

    def of(self, rows: int, context: int) -> float:
        """Without noise or jump."""
        return self.base * (1 + self.per_row * (rows - 1) + self.per_position * context)

    def next(self, rows: int, context: int) -> float:
        self.num_forwards += 1
        jump = self.jump if self.num_forwards > self.jump_at else 1.0
        return self.of(rows, context) * jump * float(np.exp(self.noise * self.rng.normal()))


class TimedTarget(ScriptedTarget):
    """A scripted target whose forwards take time."""

    def __init__(
        self, logits: Callable[[tuple[int, ...]], NDArray[np.float32]], vocab: int, clock: Clock, costs: Costs
    ):
        super().__init__(logits, vocab, max_rows=64)
        self.clock, self.costs = clock, costs

    @property
    def row_counts(self) -> Sequence[int]:
        return (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

    def dry_run(self, num_rows: int, context: int) -> bool:
        self.clock.advance(self.costs.of(num_rows, context))
        return True

    def score(self, work: Sequence[tuple[Request, DraftTree]]) -> list[NDArray[np.float32]]:
        rows = sum(len(tree) + 1 for _, tree in work)
        padded = next(count for count in self.row_counts if count >= rows)
        self.clock.advance(self.costs.next(padded, max(len(request.tokens) for request, _ in work)))
        return super().score(work)


class TimedDrafter(ScriptedDrafter):
    """A scripted drafter that takes `seconds` for a proposal of any depth, or for each of its levels.

    Nodes of one depth succeed alike. One that has levels shows a token of the script's chain in each.
    """

    def __init__(self, name: str, script, clock: Clock, seconds: float, num_levels: int = 1) -> None:
        super().__init__(script)
        self.name = name  # type: ignore[misc]
        self.clock, self.seconds, self.num_levels = clock, seconds, num_levels
        self.num_asked = self.num_shown = 0

    def propose(self, requests: Sequence[Request], limits: Sequence[DraftLimits]) -> list[DraftTree]:
        trees = [
            DraftTree(tree.tokens, tree.parents, tree.scores, (self.name,) * len(tree), tree.depths)
            for tree in super().propose(requests, limits)
        ]
        num_levels = max(self._num_levels(*work) for work in zip(trees, limits, strict=True))
        self.num_asked += 1
        self.num_shown += num_levels
        self.clock.advance(num_levels * self.seconds)
        size = num_levels if self.num_levels > 1 else 64
        return [DraftTree(*(part[:size] for part in _parts(tree))) for tree in trees]

    def _num_levels(self, tree: DraftTree, limits: DraftLimits) -> int:
        """How many levels of a chain to show: on while the next should bring enough, see `DraftLimits`."""
        before = gain = 1.0
        for level, score in enumerate(tree.scores[: min(self.num_levels, limits.max_depth)]):
            if level and gain * min(gain / before, 1.0) <= limits.min_gain:
                return level
            before, gain = gain, gain * score
        return max(min(self.num_levels, limits.max_depth, len(tree)), 1)

    def observe(self, outcome: StepOutcome) -> None:
        self.outcomes.append(outcome)


def _parts(tree: DraftTree) -> tuple:
    return tree.tokens, tree.parents, tree.scores, tree.sources, tree.buckets


@dataclass
class World:
    """An engine on a simulated clock."""

    clock: Clock
    target: TimedTarget
    pacer: AdaptivePacer
    engine: Engine

    def run(self, requests: Sequence[Request], on_step: Callable[[float], None] = lambda seconds: None) -> None:
        """Decode requests together, to their ends; their drafters are attached first.

        `on_step` is told after each step how many seconds it took.
        """
        for drafter in {id(d): d for request in requests for d in request.drafters}.values():
            self.engine.pacer.attach(drafter, self.target)
            drafter.num_asked = drafter.num_shown = 0
        for request in requests:
            self.engine.add(request)
        while not self.engine.scheduler.is_idle:
            before = self.clock.now
            self.engine.step()
            on_step(self.clock.now - before)


def world(
    logits, vocab: int, costs: Costs, max_slowdown: float = 0.02, budget: int = 64, file: Path | None = None
) -> World:
    """A target of these costs, measured, and a pacer that has learnt nothing yet."""
    clock = Clock()
    target = TimedTarget(logits, vocab, clock, costs)
    pacer = AdaptivePacer(CostTable(measure(target, clock), rest=1e-6), max_slowdown, budget, clock, file)
    return World(clock, target, pacer, Engine(target, pacer, clock=clock))


def request_of(vocab: int, max_tokens: int, drafters=(), seed: int = 0, temperature: float = 1.0) -> Request:
    return Kind({"temperature": temperature}).request(vocab, max_tokens, seed=seed, drafters=drafters)


def plain_seconds(costs: Costs, request: Request) -> float:
    """What plain decoding of a finished request takes without noise."""
    return sum(costs.of(1, length) for length in range(request.num_prompt_tokens, len(request.tokens)))
