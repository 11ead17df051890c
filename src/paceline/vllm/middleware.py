"""What OpenAI's requests say to drafters, put where vLLM hands it on: for its API server's `--middleware`.

`prediction` and whose a request is become `vllm_xargs`, added at the end of the body; every other byte stays. It is
pure ASGI: a body is read when the endpoint asks for it, so of no request that is refused before.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from paceline.vllm.hints import MAX_CHARACTERS, PREDICTION, TENANT
from paceline.vllm.tenants import api_key_of, kept_secret, tenant_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MAX_BODY = 16 * 2**20  # bytes; a longer one passes as it is
_ENDPOINTS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
_SPACE = b" \t\r\n"  # JSON's


class Middleware:
    """Tells drafters in vLLM what a request predicts and whose it is. It refuses nothing and never fails one.

    Args:
        app: what is behind it.
        secret: by which tenants are named; the one kept on this machine unless given.
    """

    def __init__(self, app: App, secret: bytes | None = None) -> None:
        self._app, self._secret = app, secret or kept_secret()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith(_ENDPOINTS):
            await self._app(scope, receive, send)
            return
        key = api_key_of(scope["headers"])
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]  # will be another
        body = _Body(receive, lambda read: told(read, key, self._secret))
        await self._app({**scope, "headers": headers}, body, send)


class _Body:
    """`receive` of a request whose body is changed, unless it is too long: then it passes as it comes."""

    def __init__(self, receive: Receive, change: Callable[[bytes], bytes]) -> None:
        self._receive, self._change = receive, change
        self._read = bytearray()
        self._next: deque[Message] = deque()
        self._is_read = False

    async def __call__(self) -> Message:
        if not self._is_read:
            await self._take()
        return self._next.popleft() if self._next else await self._receive()

    async def _take(self) -> None:
        more = True
        while more and len(self._read) <= MAX_BODY:
            message = await self._receive()
            if message["type"] != "http.request":  # gone half-way
                self._is_read = True
                self._next.append(message)
                return
            self._read += message.get("body", b"")
            more = message.get("more_body", False)
        self._is_read = True
        body = bytes(self._read) if len(self._read) > MAX_BODY else self._change(bytes(self._read))
        self._next.append({"type": "http.request", "body": body, "more_body": more})


def told(body: bytes, api_key: str, secret: bytes) -> bytes:
    """A request's body with what drafters are to know; as it is where there is nothing, or that is no JSON object."""
    try:
        fields = json.loads(body.decode())
        extra = fields.get("vllm_xargs") or {}
        hints = _hints(fields, extra, api_key, secret)
        if not hints:
            return body
        added = json.dumps({**extra, **hints}).encode()
    except Exception:  # vLLM says what is wrong with it; hints change the speed alone
        return body
    bare = body.rstrip(_SPACE)
    comma = b"," if fields else b""
    return bare[:-1] + comma + b'"vllm_xargs":' + added + b"}" + body[len(bare) :]  # of two of a name the last counts


def _hints(fields: Mapping[str, Any], extra: Mapping[str, Any], api_key: str, secret: bytes) -> dict[str, str]:
    hints = {}
    if tenant := tenant_of(api_key, fields.get("cache_salt"), extra.get(TENANT), secret):
        hints[TENANT] = tenant
    if PREDICTION not in extra and (prediction := _prediction(fields.get("prediction"))):
        hints[PREDICTION] = prediction
    return hints


def _prediction(said: Any) -> str:
    """A text, OpenAI's `{"type": "content", "content": ...}` with a text or parts; of anything else nothing."""
    content = said.get("content") if isinstance(said, dict) else said
    if isinstance(content, list):
        content = "".join(_texts(content))
    if not isinstance(content, str):
        return ""
    return content[:MAX_CHARACTERS].encode("utf-8", "ignore").decode()  # half a surrogate pair would be refused


def _texts(parts: Iterable[Any]) -> Iterable[str]:
    return (part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
