"""Bodies of requests: read within limits of bytes and time, and strict JSON; whatever is wrong is told by its field."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from paceline.server.errors import ApiError
from paceline.server.settings import Limits


class JsonRequest(Request):
    """A request whose body is JSON, whatever its length header says."""

    @property
    def limits(self) -> Limits:
        """Those of the server."""
        limits: Limits = self.app.state.service.settings.limits
        return limits

    async def body(self) -> bytes:
        """The bytes of the body.

        Raises:
            ApiError: it is no JSON by its header, too large, or does not come.
        """
        if not hasattr(self, "_body"):
            self._check_headers()
            try:
                self._body = await asyncio.wait_for(self._read(), self.limits.body_seconds)
            except asyncio.TimeoutError:
                seconds = self.limits.body_seconds
                raise ApiError(408, f"the body did not come; allowed: {seconds:g} seconds") from None
        return self._body

    async def json(self) -> Any:
        """The value of the body."""
        return parsed(await self.body(), self.limits.max_json_depth)

    def _check_headers(self) -> None:
        kind = self.headers.get("content-type", "application/json").split(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise ApiError(415, f"content-type is {kind!r}; allowed: application/json")
        coding = self.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise ApiError(415, f"content-encoding is {coding!r}; allowed: none")
        length = self.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.max_body_bytes:
            raise self._too_large()

    async def _read(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async for part in self.stream():
                size += len(part)
                if size > self.limits.max_body_bytes:
                    raise self._too_large()
                parts.append(part)
        except ClientDisconnect:
            raise ApiError(499, "the client is gone") from None
        return b"".join(parts)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is too large; allowed: {self.limits.max_body_bytes} bytes")


class JsonRoute(APIRoute):
    """A route whose bodies are read as `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def run(request: Request) -> Response:
            return await handle(JsonRequest(request.scope, request.receive))

        return run


def parsed(body: bytes, max_depth: int) -> Any:
    """The value of a body that is JSON as RFC 8259 has it; of equal keys the last wins.

    Raises:
        ApiError: it is not, or is too deep.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is no UTF-8 from byte {error.start} on; allowed: JSON in UTF-8") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body is a JSON {type(value).__name__}; allowed: an object")
    _check(value, max_depth)
    return value


def _check(value: Any, max_depth: int) -> None:
    """Refuse what is too deep, and texts that cannot be written as UTF-8, level by level."""
    level, depth = [value], 0
    while level:
        if depth > max_depth:
            raise _too_deep(max_depth)
        texts = [text for one in level for text in _texts(one)]
        if any(not text.isascii() and _has_surrogate(text) for text in texts):
            raise ApiError(400, "a string in the body has a lone surrogate; allowed: Unicode characters")
        level = [child for one in level for child in _children(one)]
        depth += 1


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _too_deep(max_depth: int) -> ApiError:
    return ApiError(400, f"the body is nested too deep; allowed: {max_depth} levels")


def _refuse_constant(name: str) -> None:
    raise ApiError(400, f"the body has {name}; allowed: finite numbers")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ApiError(400, f"the body has the number {text[:40]}; allowed: finite numbers")
    return value
