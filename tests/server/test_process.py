"""The command as its own process: the first line, signals, and what becomes of those who are being served."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from paceline.cli import main

from .asking import ask

LONG = {"prompt": "Once", "max_tokens": 300, "temperature": 0, "ignore_eos": True, "speculation": {"drafters": "none"}}


@contextmanager
def served(python: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`paceline serve` on a free port, and its address, once it answers."""
    command = [python, "-m", "paceline", "serve", "--port", "0"]
    with tempfile.NamedTemporaryFile() as file:  # a pipe that nobody reads would be full some time
        log = Path(file.name)
        process = subprocess.Popen(command, stderr=file, text=True)
        try:
            url = address_in(log)
            wait_for(url)
            yield process, url
            assert "Traceback" not in log.read_text()
        finally:
            process.kill()
            process.wait()


def address_in(log: Path) -> str:
    """The address that the server writes once it has its model; read from the start, and its own place left alone."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := re.search(r"http://[^ ]+(?=/v1)", log.read_text()):
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the server does not say where it is")


def wait_for(url: str) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            assert ask(url, "/ready").status == 200
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the server does not answer")


def begin(url: str, body: dict[str, Any]) -> socket.socket:
    """A stream that has begun."""
    parts = urlsplit(url)
    sent = json.dumps({**body, "stream": True}).encode()
    connection = socket.create_connection((parts.hostname, parts.port), 60)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    connection.sendall(head + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
    assert b" 200 " in connection.recv(100)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """What else comes, to the end."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("num_signals", [1, 2])
def test_the_first_signal_lets_streams_end_and_the_second_does_not(python: str, num_signals: int) -> None:
    """What is said of the second one: it ends a stream that would take minutes."""
    body = LONG if num_signals == 1 else {**LONG, "max_tokens": 2000}
    with served(python) as (process, url), begin(url, body) as stream:
        if num_signals == 2:
            others = [begin(url, {**body, "seed": seed, "temperature": 1}) for seed in range(12)]
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        if num_signals == 2:
            process.send_signal(signal.SIGINT)
        received = rest_of(stream)
        assert (b"data: [DONE]" in received) == (num_signals == 1)
        process.wait(20)
        assert process.returncode == 0
        for other in others if num_signals == 2 else []:
            other.close()


def test_a_port_that_is_taken_is_found_before_the_model_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["paceline", "serve", "--model", "./nowhere", "--port", port])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
