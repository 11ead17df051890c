"""The outermost middleware: gives each HTTP request an id, and sees it to its end.

Pure ASGI: nothing stands between an endpoint and its client's disconnection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paceline.server.errors import as_api_error
from paceline.server.events import JsonResponse
from paceline.server.observing.exchange import CURRENT, Exchange, request_id
from paceline.server.observing.telemetry import Telemetry

ID_HEADER = "x-request-id"


class Exchanges:
    """Middleware: every response carries the id of its request; what nobody foresaw is answered here, with a 500.

    Args:
        app: what answers else.
        telemetry: who is told.
        for_others: puts on the headers without which pages of other sites may not read a response.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, for_others: Callable[[ASGIApp], ASGIApp]) -> None:
        self._app, self._telemetry, self._for_others = app, telemetry, for_others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = Exchange(request_id(headers.get(ID_HEADER)), scope["method"], scope["path"], headers)
        token = CURRENT.set(exchange)
        self._telemetry.opened(exchange)
        try:
            await self._answer(exchange, scope, receive, _Ends(exchange, send))
        finally:
            CURRENT.reset(token)
            exchange.finished = time.perf_counter()
            self._telemetry.closed(exchange, _handler(scope))

    async def _answer(self, exchange: Exchange, scope: Scope, receive: Receive, send: _Ends) -> None:
        async def watched() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not exchange.is_complete:
                exchange.is_abandoned = True
            return message

        try:
            await self._app(scope, watched, send)
        except asyncio.CancelledError:  # the server is ended, which is the only one to do so: no error of anybody
            exchange.is_abandoned = True
        except Exception as error:
            self._telemetry.journal.failed(error, [exchange.id])
            if exchange.status:
                raise
            answer = as_api_error(error)
            response = JsonResponse(answer.body(), answer.status_code, answer.headers)
            await self._for_others(response)(scope, receive, send)


class _Ends:
    """Sends on, and notes how a response begins and ends."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange, self._send = exchange, send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            MutableHeaders(scope=message)[ID_HEADER] = self._exchange.id
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._exchange.is_complete = True


def _handler(scope: Scope) -> str:
    """The path of the endpoint as it is declared; what was sent instead would be a label for every guess."""
    return str(getattr(scope.get("route"), "path", "none"))
