"""Paths as clients write them: a slash too many is forgiven, and what is not here says where it is."""

from __future__ import annotations

import re

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from paceline.server.errors import ApiError

_ELSEWHERE = {
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "reranking",
    "/v1/audio/speech": "audio",
    "/v1/audio/transcriptions": "audio",
    "/v1/images/generations": "images",
    "/v1/moderations": "moderation",
    "/v1/assistants": "assistants",
    "/v1/threads": "assistants",
}


class Paths:
    """Middleware: a trailing slash is dropped, where a redirect would lose the body; OPTIONS is answered anywhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":  # a preflight is answered before, by CORS
            await Response(headers={"allow": "GET, HEAD, POST, OPTIONS"})(scope, receive, send)
            return
        if scope["type"] == "http" and len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope["path"] = scope["path"].rstrip("/") or "/"  # in place: who stands before learns the endpoint by it
        await self._app(scope, receive, send)


def not_found(method: str, path: str, known: frozenset[str]) -> ApiError:
    """There is nothing at a path; `known` are those where there is something."""
    shown = path[:100]
    if path in _ELSEWHERE:
        return ApiError(404, f"{shown}: this server generates text; {_ELSEWHERE[path]} is out of its scope")
    meant = re.sub(r"(/v1)+(?=/|$)", "/v1", re.sub(r"/{2,}", "/", path)).rstrip("/")
    near = next((one for one in (meant, f"/v1{meant}") if one in known and one != path), None)
    hint = f"did you mean {near}?" if near else "allowed: " + ", ".join(sorted(known))
    return ApiError(404, f"nothing is at {method} {shown}; {hint}")
