"""`paceline bench step`: one forward by row count, beside transformers with the same weights, and others if given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.bench.forwards import PacelineForward, TimedForward, TransformersForward
from paceline.bench.memory import bytes_read, token_bytes
from paceline.bench.timing import Contender, Ratio, interleave, ratio, self_ratio
from paceline.console import progress
from paceline.errors import ConfigError
from paceline.model.bandwidth import Bandwidth, measure_bandwidth
from paceline.model.hf import HFTarget
from paceline.model.loading import load_target

_Others = Mapping[str, TimedForward]


@dataclass(frozen=True)
class StepPlan:
    """What to time: row counts over a context, so many rounds, within so many seconds."""

    rows: tuple[int, ...]
    context: int = 128
    repeats: int = 31
    seconds: float = 300.0
    dtype: str = "auto"  # Paceline's: int8 and int4 quantise the model that transformers runs as it is
    rest: float = 0.0  # seconds before each turn, for threads of the one before to fall asleep


@dataclass(frozen=True)
class StepRow:
    """Seconds of each round at one row count; empty: Paceline, where the rows do not fit."""

    rows: int
    padded: int | None  # Paceline pads to a row count whose bits are proven
    paceline: list[float]
    transformers: list[float]
    others: dict[str, list[float]] = field(default_factory=dict)  # by name

    def against(self, seconds: list[float]) -> Ratio | None:
        """Paceline's time over that of another one; None where the rows do not fit."""
        return ratio(self.paceline, seconds) if self.paceline else None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        against = self.against(self.transformers)
        return {
            "rows": self.rows,
            "padded_rows": self.padded,
            "paceline_ms": median(self.paceline) * 1e3 if self.paceline else None,
            "transformers_ms": median(self.transformers) * 1e3,
            "paceline_over_transformers": against.as_dict() if against else None,
            "noise": self_ratio(self.transformers),
            "paceline_seconds": self.paceline,
            "transformers_seconds": self.transformers,
            "others": self.others,
        }


@dataclass(frozen=True)
class StepReport:
    """The measurement of one model."""

    name: str
    numerics: dict[str, Any]
    rows: list[StepRow]
    bandwidth: Bandwidth
    paceline_bytes: int  # of weights that one forward reads
    transformers_bytes: int
    cache_bytes: int = 0  # of the context's keys and values, as if every layer saw it whole

    @property
    def floor(self) -> float:
        """Seconds that reading Paceline's weights and the context once takes at the measured bandwidth."""
        return (self.paceline_bytes + self.cache_bytes) / self.bandwidth.best

    @property
    def noise(self) -> float | None:
        """The largest deviation of transformers against itself over the row counts, as a share."""
        ratios = [self_ratio(row.transformers) for row in self.rows]
        return max((abs(r - 1.0) for r in ratios if r is not None), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "model": self.name,
            "numerics": self.numerics,
            "rows": [row.as_dict() for row in self.rows],
            "noise": self.noise,
            "read_bytes_per_second": self.bandwidth.read,
            "copy_bytes_per_second": self.bandwidth.copy,
            "weight_bytes_read": {"paceline": self.paceline_bytes, "transformers": self.transformers_bytes},
            "cache_bytes_read": self.cache_bytes,
            "floor_ms": self.floor * 1e3,
        }


def bench_step(name: str, model: PreTrainedModel, plan: StepPlan, others: _Others | None = None) -> StepReport:
    """Time a stock model beside Paceline over the same weights; `others` have their caches filled with the context."""
    with progress(f"{name}: probing and measuring bandwidth"):
        target, info = load_target(model, dtype=plan.dtype, cache_tokens=max(4096, plan.context + 1024))
        bandwidth = measure_bandwidth(model.device)
    if plan.context + max(plan.rows) > target.max_length:
        max_context = target.max_length - max(plan.rows)
        raise ConfigError(f"context is {plan.context}; allowed for {name}: at most {max_context}")
    with progress(f"{name}: forwards", plan.repeats + 1) as advance:
        rows = _time_rows(model, target, plan, others or {}, advance)
    read = (bytes_read(target.decoder.model), bytes_read(model))
    return StepReport(name, info.numerics, rows, bandwidth, *read, plan.context * token_bytes(target.decoder.pool))


def step_context(model: PreTrainedModel, plan: StepPlan) -> list[int]:
    """The cached tokens that every forward stands behind: random ones, the same every time."""
    generator = torch.Generator().manual_seed(0)
    tokens: list[int] = torch.randint(model.config.vocab_size, (plan.context,), generator=generator).tolist()
    return tokens


def _time_rows(
    model: PreTrainedModel, target: HFTarget, plan: StepPlan, others: _Others, advance: Callable[[], None]
) -> list[StepRow]:
    context = step_context(model, plan)
    theirs = TransformersForward(model, context)
    with closing(PacelineForward(target.decoder, context)) as ours:
        contenders = _contenders(plan, ours, {"transformers": theirs, **others})
        samples = interleave(contenders, plan.repeats, plan.seconds, advance, plan.rest)
        return [_row(count, ours.padded(count), samples, others) for count in plan.rows]


def _contenders(plan: StepPlan, ours: PacelineForward, others: _Others) -> list[Contender]:
    contenders = []
    for count in plan.rows:
        if ours.padded(count) is not None:
            contenders.append(ours.contender(f"paceline {count}", count))
        contenders += [other.contender(f"{name} {count}", count) for name, other in others.items()]
    return contenders


def _row(count: int, padded: int | None, samples: Mapping[str, list[float]], others: _Others) -> StepRow:
    ours, theirs = samples.get(f"paceline {count}", []), samples[f"transformers {count}"]
    return StepRow(count, padded, ours, theirs, {name: samples[f"{name} {count}"] for name in others})
