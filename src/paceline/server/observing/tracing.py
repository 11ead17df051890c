"""Spans and GenAI metrics for OpenTelemetry; it needs the extra `otel`.

Names are vLLM's and those of the semantic conventions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from paceline._version import __version__
from paceline.server.observing.exchange import Exchange

_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_NANOSECONDS = 1e9
_PATIENCE = 2000  # milliseconds for a collector that does not answer, when the server ends


class Tracing:
    """One span `llm_request` for each HTTP request that was decoded, in the trace that its headers name.

    Args:
        provider: where spans go.
        meters: where GenAI metrics go, if anywhere.
        model: what the server calls its model.
    """

    def __init__(self, provider: TracerProvider, model: str, meters: MeterProvider | None = None) -> None:
        self._providers: list[TracerProvider | MeterProvider] = [provider] if meters is None else [provider, meters]
        self._model = model
        self._tracer = provider.get_tracer("paceline", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._histograms = {}
        if meters is not None:
            meter = meters.get_meter("paceline", __version__)
            for name in ("request.duration", "time_to_first_token", "time_per_output_token"):
                self._histograms[name] = meter.create_histogram(
                    f"gen_ai.server.{name}", "s", explicit_bucket_boundaries_advisory=_BUCKETS
                )

    def closed(self, exchange: Exchange) -> None:
        """Tell of a request that has ended."""
        now, clock = time.time_ns(), time.perf_counter()
        latencies = _latencies(exchange)
        span = self._tracer.start_span(
            "llm_request",
            context=self._propagator.extract(dict(exchange.headers)),
            kind=SpanKind.SERVER,
            attributes={**self._about(exchange), **{f"gen_ai.latency.{name}": s for name, s in latencies.items()}},
            start_time=now - int((clock - exchange.arrived) * _NANOSECONDS),
        )
        if exchange.outcome >= 500 or any(request.finish_reason == "error" for request in exchange.samples):
            span.set_status(Status(StatusCode.ERROR))
        span.end(now)
        self._observe(exchange, latencies)

    def close(self) -> None:
        """Send what has not been sent."""
        for provider in self._providers:
            provider.force_flush(_PATIENCE)

    def _about(self, exchange: Exchange) -> Mapping[str, str | int | float | tuple[str, ...]]:
        samples = exchange.samples
        params = samples[0].params
        return {
            "gen_ai.request.id": exchange.id,
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": self._model,
            "gen_ai.request.max_tokens": samples[0].max_tokens,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.request.n": len(samples),
            "gen_ai.response.finish_reasons": tuple([request.finish_reason or "abort" for request in samples]),
            "gen_ai.usage.prompt_tokens": sum([request.num_input_tokens for request in samples]),
            "gen_ai.usage.completion_tokens": sum([request.num_output_tokens for request in samples]),
            "http.response.status_code": exchange.outcome,
            "url.path": exchange.path,
        }

    def _observe(self, exchange: Exchange, latencies: Mapping[str, float]) -> None:
        about = {"gen_ai.operation.name": "chat" if "chat" in exchange.path else "text_completion"}
        about |= {"gen_ai.provider.name": "paceline", "gen_ai.request.model": self._model}
        values = {"request.duration": exchange.seconds}
        num_tokens = sum([request.num_output_tokens for request in exchange.samples])
        if "time_to_first_token" in latencies:
            values["time_to_first_token"] = latencies["time_to_first_token"]
        if "time_in_model_decode" in latencies and num_tokens > len(exchange.samples):
            values["time_per_output_token"] = latencies["time_in_model_decode"] / (num_tokens - len(exchange.samples))
        for name, histogram in self._histograms.items():
            if name in values:
                histogram.record(values[name], about)


def _latencies(exchange: Exchange) -> dict[str, float]:
    """Seconds; of several samples, from the first one's beginning to the last one's end."""
    times = [request.times for request in exchange.samples]
    admitted = min([one.admitted for one in times if one.admitted is not None], default=None)
    first = min([one.first_token for one in times if one.first_token is not None], default=None)
    ended = max([one.finished for one in times if one.finished is not None], default=None)
    found = {"e2e": exchange.seconds}
    if admitted is not None:
        found["time_in_queue"] = admitted - exchange.arrived
    if first is not None:
        found["time_to_first_token"] = first - exchange.arrived
    if admitted is not None and first is not None:
        found["time_in_model_prefill"] = max(first - admitted, 0.0)
    if first is not None and ended is not None:
        found["time_in_model_decode"] = ended - first
    if admitted is not None and ended is not None:
        found["time_in_model_inference"] = ended - admitted
    return found


def exporting(endpoint: str | None, model: str) -> Tracing:
    """Spans and metrics to a collector, by OTLP over HTTP; the environment says the rest, as OpenTelemetry has it.

    Raises:
        ImportError: the exporter is not installed.
    """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "paceline")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(_under(endpoint, "v1/traces"))))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(_under(endpoint, "v1/metrics")))
    return Tracing(provider, model, MeterProvider(metric_readers=[reader], resource=resource))


def _under(endpoint: str | None, path: str) -> str | None:
    """Where a signal goes; None is what the environment says."""
    return f"{endpoint.rstrip('/')}/{path}" if endpoint else None
