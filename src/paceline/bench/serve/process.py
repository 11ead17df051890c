"""Our own server as a process: started on a free port, awaited until it is ready, ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

import httpx

from paceline.errors import StateError

HOST = "127.0.0.1"
_START_SECONDS = 600.0  # a large model is read from disk, and its row counts are proven
_END_SECONDS = 30.0  # it may finish what it is at
_ASK_EVERY = 0.1  # seconds
_LAST_WORDS = 2000  # characters of what it said last


def paceline_command(name: str, model: str, draft_model: str | None, dtype: str) -> list[str]:
    """`paceline serve` with the interpreter that runs this; requests call the model by `name`."""
    options = {"--model": model, "--served-model-name": name, "--dtype": dtype, "--host": HOST}
    if draft_model is not None:
        options["--draft-model"] = draft_model
    return [sys.executable, "-m", "paceline", "serve", *(part for option in options.items() for part in option)]


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """The base URL of a server that takes `--port`, from its first good answer to /health until the `with` ends.

    Raises:
        StateError: it ended or was not ready in time; says its last words.
    """
    port = free_port()
    base_url = f"http://{HOST}:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
        try:
            with leaving_on_sigterm():
                _await(process, base_url, command, log)
                yield base_url
        finally:
            _end(process)


@contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Ended from outside, this process ends the server too; only a main thread may see to that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _await(process: subprocess.Popen[bytes], base_url: str, command: Sequence[str], log: IO[bytes]) -> None:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise StateError(f"{command[0]} ended with exit code {process.returncode}: {_last_words(log)}")
        try:
            if httpx.get(f"{base_url}/health", trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass  # it does not listen yet
        time.sleep(_ASK_EVERY)
    raise StateError(f"{command[0]} was not ready in {_START_SECONDS:.0f} s: {_last_words(log)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: IO[bytes]) -> str:
    size = log.seek(0, 2)
    log.seek(max(size - _LAST_WORDS, 0))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
