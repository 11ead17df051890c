"""Whether the server lives, and whether it takes requests."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from paceline._version import __version__
from paceline.server.deps import TheService
from paceline.server.errors import ApiError

router = APIRouter(tags=["state"])


@router.api_route("/health", methods=["GET", "HEAD"])
@router.api_route("/v1/health", methods=["GET", "HEAD"], include_in_schema=False)
@router.api_route("/ping", methods=["GET", "HEAD"], include_in_schema=False)
def health(service: TheService) -> Response:
    """Empty, with 200 while the engine lives."""
    if not service.runtime.thread.is_alive:
        raise ApiError(503, "the engine has ended")
    return Response()


@router.api_route("/ready", methods=["GET", "HEAD"])
def ready(service: TheService) -> Response:
    """Empty, with 200 while requests are taken."""
    if service.is_draining:
        raise ApiError(503, "the server is shutting down")
    return health(service)


@router.get("/version")
def version() -> dict[str, Any]:
    """The release."""
    return {"version": __version__}
