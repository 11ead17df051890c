"""Logs: one line a request, one traceback a failure, no text of anybody's unless it is asked for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from paceline import LLM
from paceline.server import Settings, create_app
from paceline.server.observing.logs import NAME, Journal, configure

from .running import running
from .scripted import BAD, asked, counting

SECRET = "Rumpelstiltskin"


class Kept(logging.Handler):
    """What whoever embeds the application would do with it: here, keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[list[logging.LogRecord]]:
    """Whatever is logged by anybody, all of it if it is the server's."""
    handler, root, own = Kept(), logging.getLogger(), logging.getLogger(NAME)
    level = own.level
    root.addHandler(handler)
    own.setLevel(logging.DEBUG)
    yield handler.records
    own.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def lines(kept: list[logging.LogRecord]) -> Any:
    """What the server has logged, by event."""
    return lambda event: [
        record.msg
        for record in kept
        if record.name == NAME and isinstance(record.msg, dict) and record.msg["event"] == event
    ]


def test_a_request_is_one_line_of_figures(lines: Any) -> None:
    with counting(right=1) as (client, _law, _app):
        asked(client, [1, 2], 6, n=2)
        client.get("/health")
        asked(client, [1], 3, temperature=-1)
    whole, refused = lines("request")[0], lines("request")[-1]
    assert whole | {"ms": 0, "ttft_ms": 0, "tokens_per_second": 0, "id": "", "timestamp": "", "engine_ids": []} == {
        "event": "request",
        "level": "info",
        "logger": NAME,
        "timestamp": "",
        "id": "",
        "engine_ids": [],
        "method": "POST",
        "endpoint": "/v1/completions",
        "status": 200,
        "ms": 0,
        "ttft_ms": 0,
        "prompt_tokens": 4,
        "cached_tokens": 0,
        "output_tokens": 12,
        "tokens_per_second": 0,
        "drafter_shares": {"scripted": 0.5},
        "finish_reason": "length",
    }
    assert 0 < whole["ttft_ms"] < whole["ms"]
    assert refused["status"] == 400
    assert [line["level"] for line in lines("request") if line["endpoint"] == "/health"] == ["debug"]


@pytest.mark.filterwarnings("ignore:drafter 'scripted' failed")
def test_a_failing_step_is_traced_once_for_all_that_took_part(lines: Any) -> None:
    with counting() as (client, _law, app):

        @app.get("/boom")
        def boom() -> None:
            raise RuntimeError("nobody foresaw it")

        assert asked(client, [BAD], 3, n=3).status_code == 500
        assert client.get("/boom").status_code == 500
        assert asked(client, [BAD], 3).status_code == 500
    failures = lines("failure")
    assert [line["error"] for line in failures] == ["RuntimeError"] * 3
    assert "no way on" in failures[0]["exception"]
    assert "nobody foresaw it" in failures[1]["exception"]
    assert [line["status"] for line in lines("request")] == [500] * 3


def test_texts_are_logged_only_if_they_are_asked_for(bundled: LLM, lines: Any, kept: list[logging.LogRecord]) -> None:
    outputs = []
    for log_prompts in (False, True):
        settings = Settings(("tiny",), log_prompts=log_prompts)
        with running(create_app(bundled, settings)) as url, httpx.Client(base_url=url) as client:
            body = {"prompt": f"{SECRET} went", "max_tokens": 4, "stop": [SECRET], "user": SECRET}
            outputs.append(client.post("/v1/completions", json=body).json()["choices"][0]["text"])
            client.post("/v1/completions", json={**body, "temperature": -1})
            client.post("/v1/completions", json={**body, "logprobs": SECRET})
            client.get(f"/{SECRET}")
        if not log_prompts:
            assert not any(SECRET in str(vars(record)) for record in kept)
            assert lines("request")
    [told] = [line for line in lines("request") if "prompt" in line]
    assert told["prompt"] == f"{SECRET} went"
    assert told["outputs"] == [outputs[1]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("_loggers_as_they_were")
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_lines_are_json_or_for_eyes_and_show_no_local_variables(stream: io.StringIO) -> None:
    other = logging.getLogger(
        "uvicorn.error"
    )  # of a server that ran in this process before, with uvicorn's own settings
    other.handlers, other.propagate = [logging.NullHandler()], False
    other.setLevel("ERROR")
    configure("info", stream)

    def fail(prompt: str) -> None:
        raise ValueError(f"{len(prompt)} characters")

    try:
        fail(SECRET)
    except ValueError as error:
        Journal().failed(error, ["req-1"])
    logging.getLogger("uvicorn.error").info("started on %s", "port 1")
    logging.getLogger("httpx").info("somebody else's chatter")
    text = stream.getvalue()
    assert SECRET not in text
    assert "Traceback" in text
    assert "started on port 1" in text
    assert "chatter" not in text
    if stream.isatty():
        assert "\x1b[" in text
    else:
        failure, started = map(json.loads, text.splitlines())
        assert list(failure)[:4] == ["timestamp", "level", "logger", "event"]
        assert (failure["level"], failure["request_ids"]) == ("error", ["req-1"])
        assert (started["logger"], started["level"]) == ("uvicorn.error", "info")
