"""Requests as bytes, for what well-behaved clients do not send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What went wrong; every error has this form."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert "Traceback" not in error["message"]
        return error

    @property
    def text(self) -> str:
        choice = self.json["choices"][0]
        return str(choice["text"] if "text" in choice else choice["message"]["content"])


def ask(
    url: str, path: str, body: Any = None, *, method: str | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """One request; `body` is sent as it is if it is bytes, and as JSON otherwise."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    told = {"content-type": "application/json"} if headers is None and sent is not None else headers or {}
    try:
        connection.request(method or ("GET" if sent is None else "POST"), path, sent, told)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def send_raw(url: str, head: bytes, body: bytes = b"", timeout: float = 30.0) -> bytes:
    """What comes back for some bytes, until the server closes the connection, which it is asked to do."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout) as connection:
        connection.sendall(head + b"connection: close\r\n\r\n" + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))
