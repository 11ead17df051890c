"""`deploy/`: every query of the dashboard and of the alerts asks for series that a live server shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from paceline import LLM
from paceline.server import Settings, create_app

from .conftest import TEMPLATE
from .running import running
from .scripted import asked, counting, scraped, value

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
BY_PROMETHEUS = {"job", "instance"}  # labels that it adds itself
Live = dict[str, list[dict[str, str]]]


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana/dashboards/paceline.json").read_text())


def queries() -> list[tuple[str, str]]:
    """Where each query stands, and what it is."""
    panels = [
        (panel["title"], target["expr"]) for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    return [*panels, *((rule["alert"], rule["expr"]) for group in groups for rule in group["rules"])]


def selectors(node: Any) -> Iterator[tuple[Any, set[str]]]:
    """The series that a query selects, each with the labels by which they are summed or matched."""
    if isinstance(node, promql.VectorSelector):
        yield node, set()
    elif isinstance(node, promql.MatrixSelector):
        yield node.vector_selector, set()
    elif isinstance(node, promql.AggregateExpr):
        by = set(node.modifier.labels) if node.modifier else set()
        yield from [(found, labels | by) for found, labels in selectors(node.expr)]
    elif isinstance(node, promql.BinaryExpr):
        yield from [*selectors(node.lhs), *selectors(node.rhs)]
    elif isinstance(node, promql.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql.ParenExpr | promql.UnaryExpr):
        yield from selectors(node.expr)
    else:
        assert isinstance(node, promql.NumberLiteral | promql.StringLiteral), type(node)


def check(query: str, live: Live) -> None:
    """Fail if a query asks for what is not there."""
    for selector, labels in selectors(promql.parse(query.replace("$__rate_interval", "5m"))):
        if selector.name == "up":
            continue
        assert selector.name in live, f"{selector.name} is not shown"
        matchers = {m.name: m.value for m in selector.matchers.matchers}
        asked_for = {name: v for name, v in matchers.items() if name not in BY_PROMETHEUS}
        literal = {name: v for name, v in asked_for.items() if not v.startswith("$")}
        fitting = [
            series
            for series in live[selector.name]
            if set(asked_for) | (labels - BY_PROMETHEUS) <= set(series) and literal.items() <= series.items()
        ]
        assert fitting, f"{selector.name} has no series with {labels | set(asked_for)} and {literal}"


@pytest.fixture(scope="module")
def live(bundled: LLM, forced: LLM) -> Live:
    """All series of two servers: one whose pacer says why it stops, and one that drafts at every step."""
    found: Live = {}
    for llm in (bundled, forced):
        for family in text_string_to_metric_families(exposition(llm)):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.labels)
    return found


def exposition(llm: LLM) -> str:
    """What is told at /metrics of a server that has decoded, and that a client has left."""
    with running(create_app(llm, Settings(("tiny",)))) as url, httpx.Client(base_url=url, timeout=30) as client:
        body = {"prompt": "The old dog", "temperature": 0, "ignore_eos": True}
        client.post("/v1/completions", json={**body, "max_tokens": 30})
        with client.stream("POST", "/v1/completions", json={**body, "max_tokens": 1000, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
        for _ in range(1000):
            text = client.get("/metrics").text
            if 'finished_reason="abort",model_name="tiny"} 1.0' in text:
                return text
            time.sleep(0.01)
        raise AssertionError("the request whose client went is not told of")


@pytest.mark.parametrize(("title", "query"), queries(), ids=[title for title, _ in queries()])
def test_a_query_asks_for_what_is_there(title: str, query: str, live: Live) -> None:
    check(query, live)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("rate(vllm:generation_tokens[5m])", "vllm:generation_tokens is not shown"),
        ("sum by (drafter) (rate(vllm:generation_tokens_total[5m]))", "has no series with {'drafter'}"),
        ('vllm:request_success_total{finished_reason="done"}', "and {'finished_reason': 'done'}"),
        ('1 + vllm:num_requests_running{modle_name="$model_name"}', "has no series with {'modle_name'}"),
    ],
)
def test_a_query_for_what_is_not_there_is_found(query: str, problem: str, live: Live) -> None:
    with pytest.raises(AssertionError, match=re.escape(problem)):
        check(query, live)


def test_panels_stand_side_by_side_and_have_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (p["x"] + x, p["y"] + y)
        for p in (panel["gridPos"] for panel in panels)
        for x in range(p["w"])
        for y in range(p["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__rate_interval"} <= variables


def test_what_compose_mounts_is_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]
    mounts = [
        volume for service in services.values() for volume in service.get("volumes", ()) if volume.startswith(".")
    ]
    assert mounts
    for mount in mounts:
        assert (DEPLOY / mount.split(":")[0]).is_dir(), mount
    [job] = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["paceline:8000"]


def counts(clients: list[httpx.Client]) -> list[float]:
    """Requests that each replica has ended."""
    return [value(scraped(client), "vllm:request_success_total", finished_reason="length") for client in clients]


@pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier")
def test_litellm_keeps_a_session_on_one_of_two_replicas(bundled: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network at its import
    litellm = pytest.importorskip("litellm")
    config = yaml.safe_load((DEPLOY / "litellm.yaml").read_text())
    settings = Settings(("paceline-tiny",), chat_template=TEMPLATE)
    with running(create_app(bundled, settings)) as one, running(create_app(bundled, settings)) as two:
        for entry, url in zip(config["model_list"], (one, two), strict=True):
            assert entry["litellm_params"]["api_base"].startswith("http://127.0.0.1:800")
            entry["litellm_params"]["api_base"] = f"{url}/v1"

        def counts() -> list[int]:
            asked_of = 'http_requests_total{handler="/v1/chat/completions",method="POST",status="200"} '
            texts = [httpx.get(f"{url}/metrics").text for url in (one, two)]
            return [int(float(text.partition(asked_of)[2].partition("\n")[0] or 0)) for text in texts]

        async def ask() -> None:
            router = litellm.Router(model_list=config["model_list"], **config["router_settings"])
            given: Any = {"model": "paceline", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
            for session in range(3):
                before = counts()
                for _ in range(2):
                    await router.acompletion(**given, metadata={"session_id": f"session-{session}"})
                moved = [now - then for now, then in zip(counts(), before, strict=True)]
                assert sorted(moved) == [0, 2]

        asyncio.run(ask())


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_keeps_a_session_on_one_of_two_replicas_and_drains(tmp_path: Path) -> None:
    with counting() as (one, _, app), counting() as (two, *_):
        text = (DEPLOY / "nginx.conf").read_text()
        for port, client in (("8001", one), ("8002", two)):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{client.base_url.port}")
        socket = tmp_path / "nginx.sock"
        text = text.replace("listen 127.0.0.1:8000", f"listen unix:{socket}")
        conf = tmp_path / "nginx.conf"
        conf.write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr;\n{text.replace('http {', 'http { access_log off;', 1)}"
        )
        process = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(conf)])
        try:
            while not socket.exists():
                assert process.poll() is None
                time.sleep(0.01)
            transport = httpx.HTTPTransport(uds=str(socket))
            with httpx.Client(transport=transport, base_url="http://nginx", timeout=30) as client:
                used = set()
                for session in range(12):
                    client.headers["x-session-id"] = f"session-{session}"
                    before = counts([one, two])
                    for _ in range(3):
                        assert asked(client, [1, 2], 3).status_code == 200
                    moved = [now - then for now, then in zip(counts([one, two]), before, strict=True)]
                    assert sorted(moved) == [0, 3]
                    used.add(moved.index(3))
                assert used == {0, 1}
                assert client.get("/metrics").status_code == 404
                app.state.service.admission.is_draining = True  # the first replica: the other takes its sessions
                for _ in range(6):
                    answer = asked(client, [1, 2], 3)
                    assert (answer.status_code, "x-request-id" in answer.headers) == (200, True)
        finally:
            process.terminate()
            process.wait(10)
