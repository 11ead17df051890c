"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from paceline._version import __version__
from paceline.errors import PacelineError
from paceline.llm import LLM
from paceline.server.access import Access, Keys
from paceline.server.errors import ApiError, as_api_error, of_validation
from paceline.server.events import JsonResponse
from paceline.server.observing.middleware import Exchanges
from paceline.server.paths import Paths, not_found
from paceline.server.routes import chat, completions, health, messages, models, observing, playground, responses, tokens
from paceline.server.schemas.answers import ANTHROPIC_ERRORS, ERRORS, STREAMS
from paceline.server.service import Service
from paceline.server.settings import Settings

_MODULES = (completions, chat, responses, messages, models, tokens, health, observing, playground)
_SAID_OF = {
    **{module.__name__: STREAMS for module in (completions, chat, responses)},
    messages.__name__: {**STREAMS, **ANTHROPIC_ERRORS},
}


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
        title="Paceline",
        version=__version__,
        lifespan=lifespan,
        strict_content_type=False,
        redirect_slashes=False,  # a redirect would lose the body
        docs_url=None,  # its page asks other hosts for its scripts
        redoc_url=None,
        responses=ERRORS,
    )
    app.state.service = service
    for module in _MODULES:
        app.include_router(module.router, responses=_SAID_OF.get(module.__name__))
    _handle_errors(app)
    for_others = _cors(service.settings.origins)
    _add_middleware(app, service.settings, for_others)
    # Last: it is asked first, and sees what others refuse.
    app.add_middleware(Exchanges, telemetry=service.telemetry, for_others=for_others)
    return app


def _cors(origins: Sequence[str]) -> Callable[[ASGIApp], ASGIApp]:
    """Lets pages of these sites ask an application; without any, it stays as it is."""
    if not origins:
        return lambda app: app
    return partial(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])


def _add_middleware(app: FastAPI, settings: Settings, cors: Callable[[ASGIApp], ASGIApp]) -> None:
    """The last one added is asked first: CORS, whose preflights have no key, and whose headers belong on a 401 too."""
    app.add_middleware(Paths)
    app.add_middleware(Access, keys=Keys(settings.keys), hosts=frozenset(settings.hosts))
    app.add_middleware(cors)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> Response:
        return _answer(request, of_validation(error.errors(), error.body))

    @app.exception_handler(PacelineError)
    async def _refused(request: Request, error: PacelineError) -> Response:
        return _answer(request, as_api_error(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if isinstance(error, ApiError):
            return _answer(request, error)
        if error.status_code == 404:
            return _answer(request, not_found(request.method, request.url.path, _known_paths()))
        return _answer(request, ApiError(error.status_code, str(error.detail), headers=error.headers))


@cache
def _known_paths() -> frozenset[str]:
    """Where there is something. The OpenAPI schema says the same, and takes half a second of the event loop."""
    routes = (route for module in _MODULES for route in module.router.routes if isinstance(route, APIRoute))
    return frozenset(route.path for route in routes if route.include_in_schema and "{" not in route.path)


def _answer(request: Request, error: ApiError) -> Response:
    return JsonResponse(error.body(request.url.path), error.status_code, error.headers)
