"""The telemetry that a server's settings ask for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paceline.errors import ConfigError
from paceline.runtime import Runtime
from paceline.server.observing.logs import Journal
from paceline.server.observing.telemetry import Telemetry
from paceline.server.settings import Settings

if TYPE_CHECKING:
    from paceline.server.observing.tracing import Tracing

_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def telemetry(runtime: Runtime, settings: Settings, max_model_len: int) -> Telemetry:
    """What watches over a server of a model whose requests have at most so many tokens.

    Raises:
        ConfigError: traces are asked for, and what sends them is not installed.
    """

    def text_of(ids: Sequence[int]) -> str:
        tokenizer = runtime.loaded.tokenizer
        return tokenizer.decode(list(ids)) if tokenizer else ""

    journal = Journal(text_of if settings.log_prompts else None)
    return Telemetry(settings.names[0], max_model_len, journal, _tracing(settings))


def _tracing(settings: Settings) -> Tracing | None:
    """Where spans go. A variable is a whole machine's, and where nothing can send them it asks for nothing."""
    if not settings.otlp_endpoint and not os.environ.get(_VARIABLE):
        return None
    try:
        from paceline.server.observing.tracing import exporting

        return exporting(settings.otlp_endpoint, settings.names[0])
    except ImportError as error:
        if settings.otlp_endpoint is None:
            return None
        raise ConfigError(
            f"--otlp-endpoint is {settings.otlp_endpoint!r}, which needs {error.name}; "
            "allowed: after pip install 'paceline[otel]'"
        ) from error
