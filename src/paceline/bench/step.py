"""`paceline bench step`: one forward by row count, beside transformers and llama.cpp with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from paceline.bench.forwards import PacelineForward, TransformersForward
from paceline.bench.linears import linear_shares
from paceline.bench.llamacpp import REST, CannotCompeteError, LlamaCppForward, open_llamacpp
from paceline.bench.memory import Bandwidth, bytes_read, measure_bandwidth
from paceline.bench.timing import Contestant, Ratio, interleave, ratio, self_ratio
from paceline.console import progress
from paceline.errors import ConfigError
from paceline.model.hf import HFTarget
from paceline.model.loading import load_target

_LINEAR_ROWS = (1, 2, 4, 8)


@dataclass(frozen=True)
class StepPlan:
    """What to time: row counts over a context, so many rounds, within so many seconds."""

    rows: tuple[int, ...]
    context: int = 128
    repeats: int = 31
    seconds: float = 300.0


@dataclass(frozen=True)
class StepRow:
    """Seconds of each round at one row count; empty: Paceline where the rows do not fit, llama.cpp where it is not."""

    rows: int
    padded: int | None  # Paceline pads to a row count whose bits are proven
    paceline: list[float]
    transformers: list[float]
    llamacpp: list[float] = field(default_factory=list)

    @property
    def against_transformers(self) -> Ratio | None:
        """Paceline's time over transformers'."""
        return ratio(self.paceline, self.transformers) if self.paceline else None

    @property
    def against_llamacpp(self) -> Ratio | None:
        """Paceline's time over llama.cpp's."""
        return ratio(self.paceline, self.llamacpp) if self.paceline and self.llamacpp else None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        against, against_llamacpp = self.against_transformers, self.against_llamacpp
        return {
            "rows": self.rows,
            "padded_rows": self.padded,
            "paceline_ms": median(self.paceline) * 1e3 if self.paceline else None,
            "transformers_ms": median(self.transformers) * 1e3,
            "llamacpp_ms": median(self.llamacpp) * 1e3 if self.llamacpp else None,
            "paceline_over_transformers": against.as_dict() if against else None,
            "paceline_over_llamacpp": against_llamacpp.as_dict() if against_llamacpp else None,
            "noise": self_ratio(self.transformers),
            "paceline_seconds": self.paceline,
            "transformers_seconds": self.transformers,
            "llamacpp_seconds": self.llamacpp,
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
    llamacpp: dict[str, Any] = field(default_factory=dict)  # version and settings, or "absent": why
    linears: dict[int, float] = field(default_factory=dict)  # rows -> share of the read bandwidth, native linears alone

    @property
    def floor(self) -> float:
        """Seconds that reading Paceline's weights once takes at the measured bandwidth."""
        return self.paceline_bytes / self.bandwidth.best

    @property
    def noise(self) -> float | None:
        """The largest deviation of transformers against itself over the row counts, as a share."""
        ratios = [self_ratio(row.transformers) for row in self.rows]
        return max((abs(r - 1.0) for r in ratios if r is not None), default=None)

    def row(self, rows: int) -> StepRow | None:
        """The measurement at one row count, if Paceline could run it."""
        return next((row for row in self.rows if row.rows == rows and row.paceline), None)

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
            "floor_ms": self.floor * 1e3,
            "llamacpp": self.llamacpp,
            "linear_bandwidth_shares": self.linears,
        }


def bench_step(name: str, model: PreTrainedModel, plan: StepPlan) -> StepReport:
    """Time a stock model beside Paceline over the same weights."""
    with progress(f"{name}: probing and measuring bandwidth"):
        target, info = load_target(model, cache_tokens=max(4096, plan.context + 1024))
        bandwidth = measure_bandwidth(model.device)
        linears = linear_shares(target.decoder.model, _LINEAR_ROWS)
    if plan.context + max(plan.rows) > target.max_length:
        most = target.max_length - max(plan.rows)
        raise ConfigError(f"context is {plan.context}; allowed for {name}: at most {most}")
    with progress(f"{name}: forwards", plan.repeats + 1) as advance:
        rows, llamacpp = _time_rows(model, target, plan, advance)
    bytes_ours, bytes_theirs = bytes_read(target.decoder.model), bytes_read(model)
    return StepReport(name, info.numerics, rows, bandwidth, bytes_ours, bytes_theirs, llamacpp, linears)


def _time_rows(
    model: PreTrainedModel, target: HFTarget, plan: StepPlan, advance: Callable[[], None]
) -> tuple[list[StepRow], dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    context = torch.randint(target.vocab_size, (plan.context,), generator=generator).tolist()
    ours = PacelineForward(target.decoder, context)
    theirs = TransformersForward(model, context)
    with _llamacpp(model, context, theirs, plan.rows) as (peer, about):
        contestants = _contestants(plan.rows, ours, theirs, peer)
        rest = REST if peer is not None else 0.0
        samples = interleave(contestants, plan.repeats, plan.seconds, advance, rest)
    ours.close()
    return [_row(count, ours.padded(count), samples) for count in plan.rows], about


@contextmanager
def _llamacpp(
    model: PreTrainedModel, context: Sequence[int], theirs: TransformersForward, counts: Sequence[int]
) -> Iterator[tuple[LlamaCppForward | None, dict[str, Any]]]:
    """llama.cpp where it can compete, and what to say of it."""
    try:
        peer, about = open_llamacpp(model, context, theirs, counts)
    except CannotCompeteError as error:
        yield None, {"absent": str(error)}
        return
    with closing(peer):
        yield peer, about


def _contestants(
    counts: Sequence[int], ours: PacelineForward, theirs: TransformersForward, peer: LlamaCppForward | None
) -> list[Contestant]:
    contestants = []
    for count in counts:
        if ours.padded(count) is not None:
            contestants.append(ours.contestant(f"paceline {count}", count))
        contestants.append(theirs.contestant(f"transformers {count}", count))
        if peer is not None:
            contestants.append(peer.contestant(f"llama.cpp {count}", count))
    return contestants


def _row(count: int, padded: int | None, samples: Mapping[str, list[float]]) -> StepRow:
    ours, peer = samples.get(f"paceline {count}", []), samples.get(f"llama.cpp {count}", [])
    return StepRow(count, padded, ours, samples[f"transformers {count}"], peer)
