"""`paceline serve`: an OpenAI-compatible server over one model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from paceline.cli.loading import load_grown, load_with_progress
from paceline.cli.options import DEVICE, DRAFT_MODEL, DRAFTERS, DTYPE, HEAD, MODEL, SLOWDOWN, parse_drafters
from paceline.cli.serve_vllm import Asked, serve_by_vllm
from paceline.errors import ConfigError, first_line

if TYPE_CHECKING:
    import socket

    from paceline.llm import LLM
    from paceline.server import Settings


class Engine(str, Enum):
    """Whose server it is."""

    PACELINE = "paceline"
    VLLM = "vllm"


class LogLevel(str, Enum):
    """How severe."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KEY_VARIABLE = "PACELINE_API_KEY"


def serve(
    context: typer.Context,
    arguments: list[str] = typer.Argument(None, metavar="[MODEL] [-- VLLM'S]", show_default=False),
    model: str = MODEL,
    engine: Engine = typer.Option(Engine.PACELINE, help="Ours, or vLLM's own server with our drafters in it."),
    dry_run: bool = typer.Option(False, "--dry-run", help="With vLLM: print what would be run."),
    drafters: list[str] = DRAFTERS,
    draft_model: str = DRAFT_MODEL,
    head: str = HEAD,
    size: str = typer.Option(None, help="Grow the bundled model to 134m or 1b parameters, to see what drafts bring."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 is every one."),
    port: int = typer.Option(8000, min=0, max=65535, help="0 takes a free one, which is printed."),
    served_model_name: list[str] = typer.Option([], metavar="NAME", help="What requests call it; may be repeated."),
    any_model: bool = typer.Option(False, "--any-model", help="Answer whatever model a request names."),
    api_key: list[str] = typer.Option([], metavar="KEY", help=f"Let in who has it; also from {_KEY_VARIABLE}."),
    api_key_file: Path = typer.Option(None, metavar="FILE", help="Keys, one on each line."),
    allowed_host: list[str] = typer.Option([], metavar="NAME", help="Host name that requests may use."),
    cors_origin: list[str] = typer.Option([], metavar="ORIGIN", help="Web site whose pages may ask; * is every one."),
    strict: bool = typer.Option(False, "--strict", help="Refuse unknown fields, which else are ignored and named."),
    chat_template: Path = typer.Option(None, metavar="FILE", help="A Jinja template in place of the model's own."),
    response_template: Path = typer.Option(None, metavar="FILE", help="How calls and reasoning are read, in JSON."),
    max_open_requests: int = typer.Option(1024, min=1, help="Running and waiting; more are answered with 429."),
    max_body_mb: int = typer.Option(16, min=1, help="Largest body of a request, in MiB."),
    request_seconds: float = typer.Option(3600.0, min=0.1, help="Most seconds that one request may take."),
    drain_seconds: int = typer.Option(30, min=0, help="What running requests are given when the server is ended."),
    log_level: LogLevel = typer.Option(LogLevel.INFO, help="Least severe lines to log, on standard error."),
    log_prompts: bool = typer.Option(False, "--log-prompts", help="Write prompts and outputs into the log too."),
    otlp_endpoint: str = typer.Option(None, metavar="URL", help="OpenTelemetry collector that is sent traces."),
    dtype: str = DTYPE,
    device: str = DEVICE,
    max_slowdown: float = SLOWDOWN,
    num_speculative_tokens: int = typer.Option(None, help="Most draft tokens a step.", show_default="as many as pay"),
    cache_tokens: int = typer.Option(None, help="Positions of the key/value cache.", show_default="from free memory"),
) -> None:
    """Serve a model over HTTP, as OpenAI's API has it. Ctrl-C or SIGTERM lets it finish; a second one ends it."""
    named, further = _named(model, arguments or [])
    keys = _keys(api_key, api_key_file)
    if engine is Engine.VLLM:
        return serve_by_vllm(Asked(_given(context), named, keys, further), dry_run)
    _refuse_vllms(further, dry_run)
    _check_extra()
    from paceline.server.observing.logs import configure

    limits: dict[str, Any] = {"max_open_requests": max_open_requests, "max_body_bytes": max_body_mb * 2**20}
    limits |= {"request_seconds": request_seconds}
    settings = _settings(served_model_name or [named or "paceline-tiny"], limits)
    settings = replace(settings, keys=keys, any_model=any_model, strict=strict, log_prompts=log_prompts)
    settings = replace(
        settings,
        chat_template=_read(chat_template, "--chat-template") if chat_template else None,
        response_template=_read_json(response_template, "--response-template") if response_template else None,
        hosts=_hosts(host, allowed_host),
        origins=tuple(cors_origin),
        otlp_endpoint=otlp_endpoint,
    )
    configure(log_level.value)
    loading: dict[str, Any] = {"drafters": parse_drafters(drafters), "draft_model": draft_model, "head": head}
    loading |= {"dtype": dtype, "device": device, "max_slowdown": max_slowdown, "cache_tokens": cache_tokens}
    loading |= {"num_speculative_tokens": num_speculative_tokens}
    _run(partial(_loader(named, size), **loading), settings, _listening(host, port), drain_seconds)


def _named(model: str | None, arguments: list[str]) -> tuple[str | None, list[str]]:
    """The model, which may stand alone, and what stands behind `--`."""
    if not arguments or arguments[0].startswith("-"):
        return model, arguments
    if model:
        raise ConfigError(f"both --model ({model}) and {arguments[0]} are given; allowed: one of them")
    return arguments[0], arguments[1:]


def _given(context: typer.Context) -> dict[str, Any]:
    """Those options that a user has given."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name: context.params[name] for name, source in sources.items() if source and source.name != "DEFAULT"}


def _refuse_vllms(further: list[str], is_dry: bool) -> None:
    if further or is_dry:
        what = further[0] if further else "--dry-run"
        raise ConfigError(f"{what} is given; allowed with --engine vllm alone")


def _loader(model: str | None, size: str | None) -> Callable[..., LLM]:
    if model and size:
        raise ConfigError(f"both --model ({model}) and --size ({size}) are given; allowed: one of them")
    return partial(load_grown, size) if size else partial(load_with_progress, model)


def _run(load: Callable[[], LLM], settings: Settings, listening: socket.socket, drain_seconds: int) -> None:
    from paceline.server import create_app
    from paceline.server.running import serve as run

    with listening, load() as llm:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        typer.echo(f"{settings.names[0]} at http://{shown}:{port}/v1 · page at http://{shown}:{port}/", err=True)
        if host not in _LOOPBACK and not settings.keys:
            typer.echo("no API key is set, and others can reach this address: anyone may ask", err=True)
        run(create_app(llm, settings), listening, drain_seconds)


def _settings(names: list[str], limits: dict[str, Any]) -> Settings:
    from paceline.server import Limits, Settings

    return Settings(tuple(names), limits=replace(Limits(), **limits))


def _check_extra() -> None:
    """Say in one line what is missing."""
    try:
        import paceline.server
        import paceline.server.running  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"serving needs {error.name}; allowed: after pip install 'paceline[server]'") from error


def _keys(given: list[str], file: Path | None) -> tuple[str, ...]:
    """Those of the options, of the file and of the environment."""
    lines = _read(file, "--api-key-file").splitlines() if file else []
    keys = [key.strip() for key in (*given, *lines, os.environ.get(_KEY_VARIABLE, ""))]
    found = tuple(key for key in keys if key and not key.startswith("#"))
    if file and not found:
        raise ConfigError(f"--api-key-file is {str(file)!r}, which holds no key; allowed: one on each line")
    return found


def _read_json(file: Path, option: str) -> dict[str, Any]:
    try:
        value = json.loads(_read(file, option))
    except ValueError as error:
        raise ConfigError(f"{option} is {str(file)!r}: {error}; allowed: a file of JSON") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{option} is {str(file)!r}, which is no JSON object; allowed: a response template")
    return value


def _read(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option} is {str(file)!r}: {first_line(error)}; allowed: a text file") from error


def _hosts(host: str, allowed: list[str]) -> tuple[str, ...]:
    """On a loopback address its own names alone: a web page may reach it by any name that it has resolve to it."""
    own = _LOOPBACK if host in _LOOPBACK else ()
    return (*own, *(name.lower() for name in allowed)) if own or allowed else ()


def _listening(host: str, port: int) -> socket.socket:
    from paceline.server.running import listen

    try:
        return listen(host, port)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {first_line(error)}; allowed: --port 0, a free one") from (
            error
        )
