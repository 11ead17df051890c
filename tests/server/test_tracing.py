"""OpenTelemetry: one span a request, in the trace of its client; nothing where it is not asked for."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from paceline.errors import ConfigError
from paceline.server import Settings
from paceline.server.observing import setup
from paceline.server.observing.tracing import Tracing

from .scripted import BAD, asked, counting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.filterwarnings("ignore:drafter 'scripted' failed")
def test_a_request_is_one_span_in_the_trace_of_its_client() -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with counting() as (client, _law, app):
        app.state.service.telemetry.tracing = Tracing(provider, "counting", MeterProvider([reader]))
        body = {"prompt": [1, 2, 3], "max_tokens": 20, "temperature": 0.25, "seed": 1, "n": 2}
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine"}
        assert client.post("/v1/completions", json=body, headers=headers).status_code == 200
        assert client.get("/health").status_code == 200
        assert asked(client, [BAD], 3).status_code == 500
    whole, failed = exporter.get_finished_spans()
    assert (whole.name, whole.kind.name) == ("llm_request", "SERVER")
    assert whole.parent is not None
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert f"{whole.parent.span_id:016x}" == PARENT
    about = dict(whole.attributes or {})
    known = {
        "gen_ai.request.id": "mine",
        "gen_ai.request.model": "counting",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.25,
        "gen_ai.request.n": 2,
        "gen_ai.response.finish_reasons": ("length", "length"),
        "gen_ai.usage.prompt_tokens": 6,
        "gen_ai.usage.completion_tokens": 40,
        "http.response.status_code": 200,
    }
    assert {name: about[name] for name in known} == known
    seconds = {name: about[f"gen_ai.latency.{name}"] for name in ("time_in_queue", "time_to_first_token", "e2e")}
    assert 0 < seconds["time_in_queue"] < seconds["time_to_first_token"] < seconds["e2e"]
    parts = [about[f"gen_ai.latency.time_in_model_{part}"] for part in ("prefill", "decode")]
    assert sum(parts) == pytest.approx(about["gen_ai.latency.time_in_model_inference"])
    assert whole.start_time is not None
    assert whole.end_time is not None
    assert (whole.end_time - whole.start_time) / 1e9 == pytest.approx(seconds["e2e"], abs=0.05)
    assert (failed.parent, failed.status.status_code.name) == (None, "ERROR")
    data = reader.get_metrics_data()
    assert data is not None
    names = {metric.name for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics}
    assert names == {
        f"gen_ai.server.{name}" for name in ("request.duration", "time_to_first_token", "time_per_output_token")
    }


def test_nothing_is_traced_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert setup._tracing(Settings(("m",))) is None


def test_what_is_not_installed_is_asked_for_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may be the whole machine's; an option is meant."""
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert setup._tracing(Settings(("m",))) is None
    with pytest.raises(ConfigError, match=r"--otlp-endpoint is 'http://x', which needs .*paceline\[otel\]"):
        setup._tracing(Settings(("m",), otlp_endpoint="http://x"))
