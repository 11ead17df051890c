"""Counts behind `/metrics`, and their form for prometheus-client.

The engine's thread counts at every step, for every request. Here that is a bisection and an addition, where the
library's own histogram takes a lock and a walk over its buckets. The library does the rest: registry, format, the
process. Each series has one writer; readers in other threads may see a sum that lags by an observation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

from paceline.server.observing.catalogue import Metric


class Histogram:
    """Observations by bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value that was seen so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


class Tallies(Collector):
    """The values of metrics.

    Args:
        metrics: those there are.
        labels: of every series that is about the model.
    """

    def __init__(self, metrics: Sequence[Metric], labels: Mapping[str, str]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._labels = dict(labels)
        self._values: dict[tuple[str, tuple[str, ...]], float] = {}
        self._histograms: dict[tuple[str, tuple[str, ...]], Histogram] = {}
        for metric in metrics:
            if not metric.labels:
                self._make((metric.name, ()))
            for value in metric.known:
                self._make((metric.name, (value,)))

    def add(self, name: str, amount: float = 1, *labels: str) -> None:
        """Count something."""
        key = (name, labels)
        if key not in self._values:
            self._make(key)
        self._values[key] += amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """What a gauge shows from now on."""
        key = (name, labels)
        if key not in self._values:
            self._make(key)
        self._values[key] = value

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Where to observe."""
        key = (name, labels)
        if key not in self._histograms:
            self._make(key)
        return self._histograms[key]

    def _make(self, key: tuple[str, tuple[str, ...]]) -> None:
        metric = self._metrics[key[0]]
        assert len(key[1]) == len(metric.labels), (
            f"{metric.name} has the labels {metric.labels}, and was given {key[1]}"
        )
        if metric.kind == "histogram":
            self._histograms[key] = Histogram(metric.bounds)
        else:
            self._values[key] = 0.0

    def collect(self) -> Iterator[Family]:
        """See prometheus-client."""
        values, histograms = dict(self._values), dict(self._histograms)
        for metric in self._metrics.values():
            names = (*(self._labels if metric.is_of_model else ()), *metric.labels)
            own = tuple(self._labels.values()) if metric.is_of_model else ()
            if metric.kind == "histogram":
                family = HistogramMetricFamily(metric.name, metric.help, labels=names)
                for labels, one in [(labels, one) for (name, labels), one in histograms.items() if name == metric.name]:
                    family.add_metric((*own, *labels), _buckets(one), one.total)
                yield family
            else:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                simple = kind(metric.name, metric.help, labels=names)
                for labels, value in [
                    (labels, value) for (name, labels), value in values.items() if name == metric.name
                ]:
                    simple.add_metric((*own, *labels), value)
                yield simple


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    bounds = [str(floatToGoString(bound)) for bound in (*histogram.bounds, INF)]  # type: ignore[no-untyped-call]
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
