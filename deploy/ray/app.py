"""Replicas of vLLM with Paceline on Ray Serve: `serve run app:build model=org/name replicas=2`, in this folder.

Each replica starts vLLM's own server, which only it can reach. The door in front sends requests of one session to one
replica, streams what comes, and has a request end where its client has gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle
from sessions import MAX_BODY, handed_on, session_of
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from paceline.vllm.tenants import kept_secret

HOST = "127.0.0.1"
_START_SECONDS, _END_SECONDS = 900.0, 30.0
_LIMITS = httpx.Limits(max_connections=None)
_PARENT_DIED = 1  # Linux' PR_SET_PDEATHSIG
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


@dataclass(frozen=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: list[tuple[str, str]]


class Engine:
    """A vLLM server with Paceline in a process of its own."""

    def __init__(self, model: str, arguments: list[str]) -> None:
        port = _free_port()
        command = [sys.executable, "-m", "paceline", "serve", "--engine", "vllm", "--port", str(port), model]
        self._process = subprocess.Popen([*command, *arguments], preexec_fn=_end_with_parent)
        self._client = httpx.AsyncClient(
            base_url=f"http://{HOST}:{port}", timeout=None, limits=_LIMITS, trust_env=False
        )
        _await(self._process, f"http://{HOST}:{port}/health")

    async def ask(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> AsyncIterator[Head | bytes]:
        """The head of the answer, then its bytes as they come."""
        async with self._client.stream(method, path, headers=headers, content=body) as answer:
            mine = ("x-paceline-replica", serve.get_replica_context().replica_id.unique_id)
            yield Head(answer.status_code, [*handed_on(answer.headers.multi_items()), mine])
            async for part in answer.aiter_raw():
                yield part

    async def check_health(self) -> None:
        """Ray replaces a replica of which this raises."""
        if self._process.poll() is not None:
            raise RuntimeError(f"vLLM ended with exit code {self._process.returncode}")
        (await self._client.get("/health", timeout=60)).raise_for_status()

    def __del__(self) -> None:
        """Ray has waited for what was running."""
        process = getattr(self, "_process", None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


class Door:
    """Hands requests to the replica that their session belongs to."""

    def __init__(self, engines: DeploymentHandle, secret: bytes) -> None:
        self._engines = engines.options(method_name="ask", stream=True)
        self._secret = secret

    async def __call__(self, request: Request) -> Response:
        """Hand a request on, and its answer back."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                return JSONResponse({"error": {"message": f"a body has at most {MAX_BODY} bytes", "code": 413}}, 413)
        session = session_of(request.headers, bytes(body), self._secret)
        engines = self._engines.options(session_id=session) if session else self._engines
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        answer = engines.remote(request.method, path, handed_on(request.headers.items()), bytes(body))
        try:
            head = await anext(aiter(answer))
        except BaseException:
            answer.cancel()
            raise
        found = StreamingResponse(_parts(answer), head.status)
        found.raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers]
        return found


async def _parts(answer: Any) -> AsyncIterator[bytes]:
    """What is left of an answer; if nobody wants it any more, the replica is told."""
    try:
        async for part in answer:
            yield part
    except asyncio.CancelledError:
        answer.cancel()
        raise
    finally:
        answer.cancel()


def build(arguments: dict[str, str]) -> Application:
    """The application.

    Args:
        arguments: `model`; `replicas`, 2 unless told; `cpus` of each, 1 unless told; `ongoing`, the most requests of a
            replica before others get them; `options`, further ones of `paceline serve --engine vllm`, in one text.
    """
    engine = serve.deployment(Engine).options(
        num_replicas=int(arguments.get("replicas", 2)),
        max_ongoing_requests=int(arguments.get("ongoing", 256)),
        ray_actor_options={"num_cpus": float(arguments.get("cpus", 1))},
        request_router_config=RequestRouterConfig(request_router_class=_ROUTER),
        health_check_timeout_s=90,
        graceful_shutdown_timeout_s=60,
    )
    door = serve.deployment(Door).options(max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0})
    options = shlex.split(arguments.get("options", ""))
    return door.bind(engine.bind(arguments.get("model", "paceline-tiny"), options), kept_secret())


def _free_port() -> int:
    with socket.socket() as held:
        held.bind((HOST, 0))
        return int(held.getsockname()[1])


def _end_with_parent() -> None:
    """In the child: a replica that is killed takes its server along."""
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)
    if os.getppid() == 1:
        os._exit(1)


def _await(process: subprocess.Popen[bytes], url: str) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with exit code {process.returncode} before it was ready")
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"vLLM was not ready in {_START_SECONDS:.0f} s")
