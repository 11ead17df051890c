"""Who may ask, under which name, from which site; and what the limits say."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from paceline import LLM
from paceline.server import Limits, Settings, create_app
from paceline.server.access import Keys
from paceline.server.admission import Admission

from .asking import ask, send_raw
from .conftest import settings_for_tests
from .running import running

PROMPT = {"prompt": "Once upon a time", "max_tokens": 3, "temperature": 0}
SLOW = {**PROMPT, "max_tokens": 1900, "ignore_eos": True, "speculation": {"drafters": "none"}}
LIMITS = replace(Limits(), max_body_bytes=5000, body_seconds=0.3, max_prompts=3, max_samples=5, max_json_depth=9)


@pytest.fixture(scope="module")
def url(bundled: LLM) -> Iterator[str]:
    """With keys, for its own host names, for one site, within small limits."""
    settings = Settings(
        ("m",),
        keys=("first", "zweiter ü"),
        hosts=("127.0.0.1", "box.local"),
        origins=("https://site.example",),
        strict=True,
        limits=LIMITS,
    )
    with running(create_app(bundled, settings)) as url:
        yield url


Open = tuple[str, Admission]


@pytest.fixture(scope="module")
def open_server(bundled: LLM) -> Iterator[Open]:
    """One that lets everyone in, and what is open there."""
    app = create_app(bundled, settings_for_tests())
    with running(app) as url:
        yield url, app.state.service.admission


def with_key(key: str = "first", **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}


def test_a_key_is_asked_for_everywhere_but_where_nothing_is_told(url: str) -> None:
    for path in ("/v1/models", "/v1/nothing", "/tokenize", "/openapi.json", "/requests"):
        answer = ask(url, path)
        assert answer.status == 401, path
        assert answer.error["code"] == "invalid_api_key"
    for path in ("/health", "/ready", "/version"):
        assert ask(url, path).status == 200
    assert ask(url, "/v1/completions", PROMPT).status == 401


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer first"}, {"authorization": "bearer  first"}, {"x-api-key": "first"}],
    ids=["bearer", "in lower case", "x-api-key"],
)
def test_a_key_is_taken_in_either_header(url: str, headers: dict[str, str]) -> None:
    assert ask(url, "/v1/models", headers=headers).status == 200


@pytest.mark.parametrize("key", ["", "firs", "first2", "FIRST", "zweiter"])
def test_another_key_is_not(url: str, key: str) -> None:
    assert ask(url, "/v1/models", headers={"authorization": f"Bearer {key}"}).status == 401
    assert ask(url, "/v1/models", headers={"authorization": f"Basic {key}"}).status == 401


def test_each_key_is_a_tenant_and_its_name_says_nothing_of_it() -> None:
    keys = Keys(["alpha", "beta"])
    tenants = {keys.tenant_of("alpha"), keys.tenant_of("beta")}
    assert len(tenants) == 2
    assert None not in tenants
    assert not [name for name in tenants if "alpha" in str(name)]
    assert keys.tenant_of("gamma") is None


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is let in by the first key would else be answered sooner than by the last."""
    compared: list[bytes] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    keys = Keys(["a", "b", "c"])
    monkeypatch.setattr("paceline.server.access.compare_digest", compare)
    assert keys.tenant_of("a")
    assert len(compared) == 3


def test_a_host_name_of_others_is_refused(url: str) -> None:
    assert ask(url, "/health", headers={"host": "evil.example"}).status == 403
    assert ask(url, "/health", headers={"host": "box.local:8000"}).status == 200


def test_cors_is_for_the_named_site_and_its_headers_are_on_refusals_too(url: str) -> None:
    asked = {"origin": "https://site.example", "access-control-request-method": "POST"}
    assert ask(url, "/v1/completions", method="OPTIONS", headers=asked).status == 200
    refused = ask(url, "/v1/models", headers={"origin": "https://site.example"})
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "https://site.example"
    other = ask(url, "/health", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_cors_headers_are_on_what_nobody_foresaw(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a page would be told of the network, and of no error."""
    monkeypatch.setattr("paceline.server.routes.tokens.check_extras", lambda *_: 1 / 0)
    for origin, told in (("https://site.example", "https://site.example"), ("https://other.example", None)):
        failed = ask(url, "/tokenize", {"prompt": "Once"}, headers=with_key(origin=origin))
        assert failed.status == 500
        assert failed.headers.get("access-control-allow-origin") == told


def test_limits(url: str) -> None:
    def status(body: Any) -> int:
        return ask(url, "/v1/completions", body, headers=with_key()).status

    assert status({**PROMPT, "prompt": "a" * 6000}) == 413
    assert status({**PROMPT, "prompt": ["a"] * 4}) == 400
    assert status({**PROMPT, "n": 6}) == 400
    assert status({**PROMPT, "metadata": json.loads("[" * 10 + "]" * 10)}) == 400
    assert status({**PROMPT, "metadata": json.loads("[" * 7 + "]" * 7)}) == 200


def test_a_chunked_body_that_is_too_large_is_refused(url: str) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: first\r\n"
    body = b"1000\r\n" + b"a" * 4096 + b"\r\n"
    assert b" 413 " in send_raw(url, head + b"transfer-encoding: chunked\r\n", body + body)


def test_a_body_that_stops_half_way_is_answered(url: str) -> None:  # row 34
    head = b"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: first\r\ncontent-length: 100\r\n"
    answer = send_raw(url, head, b'{"prompt": ')
    assert b" 408 " in answer
    assert b"x-should-retry: false" in answer


def test_a_connection_that_idles_is_kept(url: str) -> None:  # row 37, by what the server is told
    from paceline.server.running import KEEP_ALIVE

    assert KEEP_ALIVE > 90


def flood(connection: socket.socket, line: bytes) -> None:
    """16 MB, unless the other side has enough of it."""
    for _ in range(2000):
        connection.sendall(line)
        time.sleep(0.001)


@pytest.mark.parametrize("line", [b"x-a: " + b"b" * 8000 + b"\r\n", b"b" * 8000], ids=["many", "one without end"])
def test_a_flood_of_headers_is_refused_and_does_no_harm(url: str, line: bytes) -> None:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-b: ")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            flood(connection, line)
    assert ask(url, "/health").status == 200


def test_a_strict_server_names_what_was_probably_meant(url: str) -> None:
    answer = ask(url, "/v1/completions", {**PROMPT, "temprature": 1}, headers=with_key())
    assert answer.status == 400
    assert answer.error["message"] == "temprature is unknown; did you mean temperature?"
    assert ask(url, "/v1/completions", {**PROMPT, "user": "me", "mirostat": 0}, headers=with_key()).status == 200


def test_what_is_open_is_counted_and_given_back(bundled: LLM) -> None:
    """Two are running, so a third is told to come back; when they are gone, so is their room."""
    app = create_app(bundled, Settings(("m",), limits=replace(Limits(), max_open_requests=2)))
    admission = app.state.service.admission
    slow = {
        **PROMPT,
        "max_tokens": 1900,
        "ignore_eos": True,
        "stream": True,
        "n": 2,
        "speculation": {"drafters": "none"},
    }
    with running(app) as url:
        parts = urlsplit(url)
        body = json.dumps(slow).encode()
        with socket.create_connection((parts.hostname, parts.port), 20) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            assert b" 200 " in connection.recv(100)
            full = ask(url, "/v1/completions", PROMPT)
            assert full.status == 429
            assert full.headers["retry-after"] == "1"
            assert full.error["code"] == "queue_full"
        deadline = time.monotonic() + 20
        while admission.num_open and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (admission.num_open, admission.num_prompt_tokens) == (0, 0)
        assert ask(url, "/v1/completions", PROMPT).status == 200
    assert bundled.engine.scheduler.is_idle


@pytest.mark.parametrize(
    "change",
    [
        {"stream_options": {"include_usage": True}},
        {"response_format": {"type": "json_object"}, "structured_outputs": {"json": {"type": "object"}}},
        {"speculation": {"drafters": "suffix:min_match=3"}},
        {"temperature": -1},
        {"seed": "1"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_what_is_refused_gives_its_room_back(open_server: Open, path: str, change: dict[str, Any]) -> None:
    url, admission = open_server
    messages = [{"role": "user", "content": "Hi"}]
    answer = ask(url, path, {**PROMPT, "messages": messages, **change})
    assert answer.status == 400
    assert str(answer.error["param"]).startswith(next(iter(change))[:8]) or "structured" in answer.error["message"]
    assert (admission.num_open, admission.num_prompt_tokens) == (0, 0)


@pytest.mark.parametrize("drafters", ["corpus:path={}", "history:path={}/new", ["suffix", "model:path={}"]])
def test_a_client_names_drafters_and_no_files(open_server: Open, tmp_path: Path, drafters: Any) -> None:
    (tmp_path / "secret.txt").write_text("The password of the house is swordfish. " * 20)
    given = [drafters] if isinstance(drafters, str) else drafters
    asked = [one.format(tmp_path) for one in given]
    body = {**PROMPT, "prompt": "The password of the house is", "return_token_details": True}
    answer = ask(open_server[0], "/v1/completions", {**body, "speculation": {"drafters": asked}})
    assert (answer.status, answer.error["param"]) == (400, "speculation.drafters")
    assert b"sword" not in answer.body
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


def test_a_request_that_takes_too_long_is_ended(bundled: LLM) -> None:
    app = create_app(bundled, Settings(("m",), limits=replace(Limits(), request_seconds=0.05)))
    with running(app) as url:
        answer = ask(url, "/v1/completions", SLOW)
    assert answer.status == 408
    assert "0.05 seconds" in answer.error["message"]
