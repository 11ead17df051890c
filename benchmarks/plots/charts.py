"""Charts as data, drawn as text (text.py) or by matplotlib (figure.py). Knows nothing of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from paceline.console import Table


@dataclass(frozen=True)
class Mark:
    """A measured figure, its 95 % interval and the least of what it summarises, where these are known."""

    value: float
    low: float | None = None
    high: float | None = None
    least: float | None = None

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest of all these."""
        known = [v for v in (self.value, self.low, self.high, self.least) if v is not None]
        return min(known), max(known)


@dataclass(frozen=True)
class Series:
    """Marks of one colour and sign, which `rank` says; by place on the chart, None where nothing was measured."""

    name: str
    marks: Sequence[Mark | None]
    rank: int


@dataclass(frozen=True)
class Band:
    """A level to compare with, and how far around it differences say nothing."""

    level: float
    width: float
    name: str


@dataclass(frozen=True)
class Bars:
    """Figures by name, one line each; the marks of every series stand in the order of `labels`."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Sequence[Series]
    band: Band | None = None


@dataclass(frozen=True)
class Lines:
    """Figures over a number (an axis of powers of two); the marks of every series stand in the order of `places`."""

    title: str
    unit: str
    axis: str
    places: Sequence[float]
    series: Sequence[Series]
    band: Band | None = None


Chart = Bars | Lines


@dataclass
class View:
    """What results of one kind have to show."""

    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
