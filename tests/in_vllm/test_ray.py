"""The application for Ray Serve: which replica a request goes to; with Ray and vLLM, two replicas on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from paceline.errors import ConfigError
from paceline.vllm.serving import installed_vllm

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "ray"
KEYED = {"authorization": "Bearer sk-1"}
SECRET = b"s" * 32
PATIENCE = 900.0  # seconds until two replicas are ready, on a machine however busy


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that knows nothing of Ray."""
    spec = importlib.util.spec_from_file_location("sessions", FOLDER / "sessions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_session_is_the_clients_own_else_its_salt_and_key(sessions: Any) -> None:
    salted = json.dumps({"cache_salt": "a", "prompt": "x"}).encode()
    names = [
        sessions.session_of(headers, body, SECRET)
        for headers, body in [
            ({}, salted),
            (KEYED, b"{}"),
            (KEYED, salted),
            ({"x-session-id": "a"}, b"{}"),
            ({**KEYED, "x-session-id": "a"}, b"{}"),
        ]
    ]
    assert len(set(names)) == 5
    assert not [name for name in names if "sk-1" in name or not name]
    assert sessions.session_of({**KEYED, "x-session-id": "a"}, salted, SECRET) == names[-1]  # it goes first


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"cache_salt', b'["cache_salt"]', b'{"cache_salt": 5}', b'"cache_salt"']
)
def test_without_any_of_them_every_replica_will_do(sessions: Any, body: bytes) -> None:
    assert sessions.session_of({}, body, SECRET) == ""


def test_what_is_of_a_connection_is_not_handed_on(sessions: Any) -> None:
    headers = [("Host", "x"), ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("x-b", "1"), ("x-b", "2")]
    assert sessions.handed_on(headers) == [("x-b", "1"), ("x-b", "2")]


def _is_there() -> str:
    """Why the rest is skipped, or nothing."""
    if importlib.util.find_spec("ray") is None:
        return "Ray is not installed; scripts/vllm_tests --ray runs this"
    try:
        installed_vllm()
    except ConfigError as error:
        return str(error)
    return ""


_RUN = """
import ray, sys
from ray import serve
ray.init(num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
from app import build
options = "--served-model-name m -- --dtype float32 --max-model-len 1024 --max-num-seqs 8"
serve.run(build({"model": "paceline-tiny", "options": options}))
print("ready", flush=True)
sys.stdin.read()
serve.shutdown()
ray.shutdown()
print("ended", flush=True)
"""


@pytest.fixture(scope="module")
def replicas() -> Iterator[httpx.Client]:
    """A client of two replicas; in the end no server of theirs is left."""
    if reason := _is_there():
        pytest.skip(reason)
    port = "8577"
    path = os.pathsep.join([str(FOLDER), str(FOLDER.parent.parent / "src")])
    environment = {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-c", _RUN, port]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        patience = threading.Timer(PATIENCE, process.kill)
        patience.daemon = True
        patience.start()
        assert any(line == "ready\n" for line in process.stdout), f"no replica is ready after {PATIENCE} seconds"
        patience.cancel()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as client:
            yield client
        process.stdin.close()
        assert process.stdout.readlines()[-1] == "ended\n"


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"model": "m", "prompt": "Once upon a time", "max_tokens": 5, "temperature": 0, **fields}
    return client.post("/v1/completions", json=body)


def test_a_session_stays_at_its_replica_and_both_have_some(replicas: httpx.Client) -> None:
    found = [[ask(replicas, cache_salt=f"s{salt}") for salt in range(12)] for _ in range(2)]
    assert {answer.status_code for answers in found for answer in answers} == {200}
    first, second = ([answer.headers["x-paceline-replica"] for answer in answers] for answers in found)
    assert first == second
    assert len(set(first)) == 2
    assert len({answer.json()["choices"][0]["text"] for answers in found for answer in answers}) == 1


def test_answers_are_streamed_and_end_with_their_client(replicas: httpx.Client) -> None:
    body = {"model": "m", "prompt": "Once", "max_tokens": 900, "ignore_eos": True, "stream": True, "cache_salt": "s"}
    with replicas.stream("POST", "/v1/completions", json=body) as answer:
        begun = next(answer.iter_lines())
        assert begun.startswith("data: ")
        replica = answer.headers["x-paceline-replica"]
    time.sleep(1)
    for _ in range(50):
        shown = replicas.get("/metrics")
        if shown.headers["x-paceline-replica"] == replica:
            running = [line for line in shown.text.splitlines() if line.startswith("vllm:num_requests_running{")]
            assert [line.rsplit(" ", 1)[1] for line in running] == ["0.0"]
            return
    pytest.fail("the replica was never asked")


def test_what_vllm_refuses_comes_back_as_it_is_and_too_much_is_refused(replicas: httpx.Client) -> None:
    assert ask(replicas, max_tokens=-1).status_code == 400
    assert replicas.post("/v1/completions", content=b" " * (16 * 2**20 + 1)).status_code == 413
    assert replicas.get("/health").status_code == 200
