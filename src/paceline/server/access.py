"""Who may ask: API keys and host names, checked in front of every endpoint.

Pure ASGI: nothing stands between an endpoint and its client's disconnection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from paceline.server.errors import ApiError
from paceline.server.events import JsonResponse

# What needs no key: they hold no text, and who watches over a server has none.
_OPEN = frozenset({"/", "/health", "/v1/health", "/ping", "/ready", "/version", "/metrics"})
_OPEN_FOLDER = "/static/"  # the page


class Keys:
    """API keys, of which only the hashes are kept."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def tenant_of(self, given: str) -> str | None:
        """The tenant of a key, a name that tells nothing of it, in the same time for every key; None is not let in."""
        digest = _hash(given)
        matches = [compare_digest(digest, known) for known in self._hashes]
        return digest.hex()[:16] if any(matches) else None

    def __bool__(self) -> bool:
        return bool(self._hashes)


class Access:
    """Middleware: requests with a key that is not let in are answered here, and so are those of other hosts' names.

    Args:
        app: what is behind it.
        keys: those that are let in; none lets everyone in.
        hosts: the names that a request may call this server by; none allows every name. A server that listens on a
            loopback address is reached by the pages of any web site, under names of their own.
    """

    def __init__(self, app: ASGIApp, keys: Keys, hosts: frozenset[str] = frozenset()) -> None:
        self._app, self._keys, self._hosts = app, keys, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal_of_host(headers) or self._refusal_of_key(scope, headers)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            answer = JsonResponse(refusal.body(scope["path"]), refusal.status_code, refusal.headers)
            await answer(scope, receive, send)

    def _refusal_of_host(self, headers: Headers) -> ApiError | None:
        host = _without_port(headers.get("host", ""))
        if not self._hosts or host in self._hosts:
            return None
        return ApiError(403, f"host is {host[:100]!r}; allowed: {', '.join(sorted(self._hosts))}")

    def _refusal_of_key(self, scope: Scope, headers: Headers) -> ApiError | None:
        """Why a request is not let in; the tenant of one that is goes along with it."""
        if not self._keys or _is_open(scope):
            return None
        given = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        tenant = self._keys.tenant_of(given) if given else None
        if tenant is None:
            how = "allowed: Authorization: Bearer KEY, or x-api-key: KEY"
            problem = "the API key is not known" if given else "an API key is missing"
            return ApiError(401, f"{problem}; {how}", code="invalid_api_key", headers={"www-authenticate": "Bearer"})
        scope["state"] = {**scope.get("state", {}), "tenant": tenant}
        return None


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return scope["method"] == "OPTIONS" or path in _OPEN or path.startswith(_OPEN_FOLDER)


def _bearer(header: str) -> str:
    scheme, _, key = header.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").lower()


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
