"""What the server is at: `/metrics` for Prometheus, `/requests` for who wonders why one takes long, `/load`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from paceline.errors import StateError
from paceline.server.deps import Tenant, TheService
from paceline.server.errors import ApiError
from paceline.server.service import Service

Value = TypeVar("Value")

router = APIRouter(tags=["state"])
_PATIENCE = 1.0  # seconds that are waited for the step that the engine is at


@router.get("/metrics", response_class=Response)
def metrics(service: TheService) -> Response:
    """Prometheus' text format. While a step takes long, what the engine was at before is told again."""
    with suppress(StateError, TimeoutError):
        service.telemetry.loaded(_asked(service, service.runtime.engine.load))
    admission, tallies = service.admission, service.telemetry.tallies
    tallies.set("paceline:open_requests", admission.num_open)
    tallies.set("paceline:open_prompt_tokens", admission.num_prompt_tokens)
    tallies.set("paceline:refused_requests", admission.num_refused)
    return Response(service.telemetry.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/requests")
def requests(service: TheService, tenant: Tenant) -> dict[str, Any]:
    """What runs and waits: counts and times, no text. Ids that clients gave are shown to those of the same key."""
    try:
        found = _asked(service, service.runtime.engine.snapshot)
    except TimeoutError:
        raise ApiError(503, f"the engine has been at one step for {_PATIENCE:g} seconds or more") from None
    ids = service.telemetry.ids_of(tenant)
    return {"object": "list", "data": [{**asdict(one), "request_id": ids.get(one.id)} for one in found]}


@router.get("/load")
async def load(service: TheService) -> dict[str, Any]:
    """How many samples run or wait, under vLLM's name."""
    return {"server_load": service.admission.num_open}


def _asked(service: Service, question: Callable[[], Value]) -> Value:
    return service.runtime.thread.ask(question).result(_PATIENCE)
