"""What an operator decides: names, keys, limits. Every limit of the server is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one request may ask of the server, and how much may wait."""

    max_body_bytes: int = 16 * 2**20
    max_json_depth: int = 64
    max_prompts: int = 256  # in one request of /v1/completions
    max_samples: int = 128  # n times prompts
    max_open_requests: int = 1024  # running and waiting, samples counted
    max_queued_prompt_tokens: int = 4 * 2**20
    body_seconds: float = 30.0  # for a request's headers, and from their end to that of its body
    write_seconds: float = 60.0  # that a reader may refuse to take more
    request_seconds: float = 3600.0
    silence_seconds: float = 10.0  # between two signs of life of a stream


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        names: what the model is called in requests; the first is the one in responses.
        keys: API keys that are let in; none lets everyone in.
        any_model: answer whatever model a request names.
        strict: refuse fields that are unknown, instead of ignoring them.
        chat_template: in place of the model's own.
        hosts: names that requests may call the server by; none allows every name.
        log_prompts: write prompts and outputs into the log.
        otlp_endpoint: of an OpenTelemetry collector; without it OTEL_EXPORTER_OTLP_ENDPOINT says whether there is one.
        origins: web sites whose pages may ask, by CORS; "*" is every one.
        response_template: how answers are read, in place of the model's own (transformers' "chat response parsing").
        limits: of requests.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...] = ()
    any_model: bool = False
    strict: bool = False
    chat_template: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    response_template: Mapping[str, Any] | None = None
    log_prompts: bool = False
    otlp_endpoint: str | None = None
    limits: Limits = field(default_factory=Limits)
