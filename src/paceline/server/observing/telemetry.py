"""What a server tells about itself: its metrics, and a log line and a span for each request."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from paceline.engine.engine import Engine
from paceline.engine.listener import EngineListener
from paceline.engine.load import EngineLoad
from paceline.engine.request import Request
from paceline.model.prefix import PAGE_SIZE
from paceline.server.observing.catalogue import catalogue
from paceline.server.observing.exchange import CURRENT, Exchange
from paceline.server.observing.listener import EngineMetrics
from paceline.server.observing.logs import Journal
from paceline.server.observing.tallies import Tallies

if TYPE_CHECKING:
    from paceline.server.observing.tracing import Tracing

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # others share a label


class Telemetry:
    """Watches over one application, with a registry of its own.

    Args:
        model: what the server calls its model.
        max_model_len: tokens of the longest request.
        journal: where requests are written down.
        tracing: where spans go, if anywhere.
    """

    def __init__(self, model: str, max_model_len: int, journal: Journal, tracing: Tracing | None = None) -> None:
        self.tallies = Tallies(catalogue(max_model_len), {"model_name": model, "engine": "0"})
        self.journal, self.tracing = journal, tracing
        self.open: set[Exchange] = set()
        self._engine: Engine | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self.tallies)
        self._process = ProcessCollector(registry=self._registry)
        # By request to the engine; weak, since one may never be submitted.
        self._arrivals: weakref.WeakKeyDictionary[Request, float] = weakref.WeakKeyDictionary()
        self._listeners: list[EngineListener] = [EngineMetrics(self.tallies, self._arrivals), journal]

    def join(self, engine: Engine) -> None:
        """Listen to an engine."""
        self._engine = engine
        engine.listeners += self._listeners
        memory, num_blocks = engine.target.memory(), engine.target.capacity // PAGE_SIZE
        self.tallies.set("paceline:cache_tokens", engine.target.capacity)
        self.tallies.set("vllm:cache_config_info", 1, str(PAGE_SIZE), str(num_blocks), "True")
        for part in ("weight", "pool"):
            self.tallies.set("paceline:memory_bytes", memory[f"{part}_bytes"], part)

    def leave(self) -> None:
        """Listen no longer, and send what has not been sent."""
        if self._engine is not None:
            self._engine.listeners = [one for one in self._engine.listeners if one not in self._listeners]
            self._engine = None
        if self.tracing is not None:
            self.tracing.close()

    def begun(self, samples: Sequence[Request], num_samples: int, tenant: str) -> None:
        """Note what the HTTP request of this task has become: so many samples of each prompt, for a tenant."""
        exchange = CURRENT.get()
        self.tallies.histogram("vllm:request_params_n").observe(num_samples)
        if exchange is not None:
            exchange.samples += samples
            exchange.tenant = tenant
            for request in samples:
                self._arrivals[request] = exchange.arrived

    def opened(self, exchange: Exchange) -> None:
        """An HTTP request has come."""
        self.open.add(exchange)

    def closed(self, exchange: Exchange, handler: str) -> None:
        """An HTTP request has been answered, or its client is gone."""
        self.open.discard(exchange)
        seconds = exchange.seconds
        method = exchange.method if exchange.method in _METHODS else "other"
        self.tallies.add("http_requests", 1, handler, method, str(exchange.outcome))
        self.tallies.histogram("http_request_duration_seconds", handler, method).observe(seconds)
        self.tallies.add("paceline:ignored_fields", exchange.num_ignored)
        if exchange.samples and exchange.outcome == 200:
            longest = max([request.num_output_tokens for request in exchange.samples])
            self.tallies.histogram("vllm:request_max_num_generation_tokens").observe(longest)
        self.journal.closed(exchange, handler)
        if self.tracing is not None and exchange.samples:
            self.tracing.closed(exchange)

    def ids_of(self, tenant: str) -> dict[int, str]:
        """The ids of a tenant's HTTP requests, by those of the requests to the engine."""
        mine = [exchange for exchange in list(self.open) if exchange.tenant == tenant]
        return {request.id: exchange.id for exchange in mine for request in exchange.samples}

    def loaded(self, load: EngineLoad) -> None:
        """Take in what the engine is at."""
        self.tallies.set("vllm:num_requests_running", load.num_running)
        self.tallies.set("vllm:num_requests_waiting", load.num_waiting)
        self.tallies.set("vllm:num_requests_waiting_by_reason", load.num_waiting, "capacity")
        self.tallies.set("vllm:kv_cache_usage_perc", load.cache_usage)
        for event, count in load.learnt.items():
            self.tallies.set("paceline:head_learning", count, event)

    def exposition(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        self.tallies.set("paceline:open_responses", len(self.open))
        for family in self._process.collect():
            if family.name == "process_resident_memory_bytes":
                self.tallies.set(f"paceline:{family.name}", family.samples[0].value)
        return generate_latest(self._registry)
