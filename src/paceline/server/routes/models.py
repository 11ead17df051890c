"""`GET /v1/models`: what is served."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from paceline.server.deps import TheService
from paceline.server.service import Service

router = APIRouter(tags=["models"])


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def list_models(service: TheService) -> dict[str, Any]:
    """The models that requests may name."""
    return {"object": "list", "data": [_described(service, name) for name in service.settings.names]}


@router.get("/v1/models/{name:path}")
async def get_model(name: str, service: TheService) -> dict[str, Any]:
    """One of them; names may contain slashes."""
    service.check_model(name)
    return _described(service, name)


def _described(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "paceline",
        "root": service.runtime.loaded.name or name,
        "parent": None,
        "max_model_len": service.room,
    }
