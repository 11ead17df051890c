"""`GET /`: the page for people. Its files come along with the package, and it asks no other host for anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request, Response

from paceline._version import __version__
from paceline.server.deps import TheService
from paceline.server.errors import ApiError

router = APIRouter(tags=["playground"])

_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# The page shows what models and strangers wrote: nothing may run or be fetched but what is served here, and texts never
# become markup (trusted types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # asked for again each time, and answered with 304 while nothing has changed
}
# Endpoints that tell of the load, of which the page uses those that there are.
_OF_LOAD = ("/metrics", "/requests")


@dataclass(frozen=True)
class _File:
    content: bytes
    kind: str
    tag: str


def _read() -> dict[str, _File]:
    found = {}
    for file in files("paceline.server").joinpath("static").iterdir():
        kind = _KINDS.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            content = file.read_bytes()
            tag = hashlib.sha256(content).hexdigest()[:16]
            found[file.name] = _File(content, f"{kind}; charset=utf-8", f'"{tag}"')
    return found


_FILES = _read()


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
def page(request: Request) -> Response:
    """The page."""
    return static("index.html", request)


@router.api_route("/static/{name}", methods=["GET", "HEAD"], include_in_schema=False)
def static(name: str, request: Request) -> Response:
    """One of its files; names that are not among them are nowhere."""
    file = _FILES.get(name)
    if file is None:
        raise ApiError(404, f"nothing is at /static/{name[:60]}; allowed: {', '.join(sorted(_FILES))}")
    headers = {**_HEADERS, "etag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)


@router.get("/playground")
def about(request: Request, service: TheService) -> dict[str, Any]:
    """What the page shows beside what is asked of the model."""
    tokenizer = service.runtime.loaded.tokenizer
    template = service.settings.chat_template or (tokenizer and tokenizer.inner.chat_template)
    paths = request.app.openapi()["paths"]
    return {
        "version": __version__,
        "models": list(service.settings.names),
        "max_model_len": service.room,
        "has_chat_template": bool(template),
        "drafters": [drafter.name for drafter in service.runtime.drafters],
        "load": [path for path in _OF_LOAD if path in paths],
    }
