"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from paceline._version import __version__
from paceline.errors import PacelineError
from paceline.llm import LLM
from paceline.server.errors import ApiError, as_api_error, of_validation
from paceline.server.events import JsonResponse
from paceline.server.routes import chat, completions, health, models
from paceline.server.service import Service
from paceline.server.settings import Settings


def create_app(llm: LLM, settings: Settings | None = None) -> FastAPI:
    """An application that serves a loaded model; the `LLM` stays its caller's to close."""
    service = Service(llm.runtime, settings or Settings((llm.runtime.loaded.name or "model",)))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.open()
        try:
            yield
        finally:
            service.close()

    app = FastAPI(
        title="Paceline", version=__version__, lifespan=lifespan, strict_content_type=False, redirect_slashes=False
    )
    app.state.service = service
    for module in (completions, chat, models, health):
        app.include_router(module.router)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(of_validation(error.errors(), error.body))

    @app.exception_handler(PacelineError)
    async def _refused(request: Request, error: PacelineError) -> Response:
        return _answer(as_api_error(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ApiError):
            return _answer(error)
        return _answer(ApiError(error.status_code, str(error.detail), headers=error.headers))

    @app.exception_handler(Exception)
    async def _unforeseen(request: Request, error: Exception) -> Response:
        return _answer(as_api_error(error))


def _answer(error: ApiError) -> Response:
    return JsonResponse(error.body(), error.status_code, error.headers)
