"""What endpoints ask FastAPI for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from paceline.server.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _tenant(request: Request) -> str:
    return str(request.scope.get("state", {}).get("tenant", ""))


TheService = Annotated[Service, Depends(_service)]
Tenant = Annotated[str, Depends(_tenant)]
