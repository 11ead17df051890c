"""Whether the server lives, and whether it takes requests: told by coroutines, while all threads may be waiting."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from paceline._version import __version__
from paceline.server.deps import TheService
from paceline.server.errors import ApiError

router = APIRouter(tags=["state"])


@router.get("/health", response_class=Response)
@router.head("/health", include_in_schema=False)
@router.get("/v1/health", include_in_schema=False)
@router.head("/v1/health", include_in_schema=False)
@router.get("/ping", include_in_schema=False)
@router.head("/ping", include_in_schema=False)
async def health(service: TheService) -> Response:
    """Empty, with 200 while the engine lives."""
    if not service.runtime.thread.is_alive:
        raise ApiError(503, "the engine has ended")
    return Response()


@router.get("/ready", response_class=Response)
@router.head("/ready", include_in_schema=False)
async def ready(service: TheService) -> Response:
    """Empty, with 200 while requests are taken."""
    if service.admission.is_draining:
        raise ApiError(503, "the server is shutting down")
    return await health(service)


@router.get("/v1", include_in_schema=False)
@router.head("/v1", include_in_schema=False)
async def root() -> dict[str, Any]:
    """Where the endpoints are: clients that are given a base address try it."""
    return {"object": "api", "endpoints": "/openapi.json"}


@router.get("/version")
async def version() -> dict[str, Any]:
    """The release."""
    return {"version": __version__}
