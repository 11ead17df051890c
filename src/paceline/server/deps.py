"""What endpoints ask FastAPI for, in coroutines: it would send functions to its threads, twice a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from paceline.server.service import Service


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _tenant(request: Request) -> str:
    return str(request.scope.get("state", {}).get("tenant", ""))


TheService = Annotated[Service, Depends(_service)]
Tenant = Annotated[str, Depends(_tenant)]
