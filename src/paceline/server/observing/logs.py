"""Structured logs: one line for each request that has ended, and one for each failure. No text of anybody's.

They go through the standard library's loggers: whoever embeds the application decides where. `configure` is for a
server that is the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import structlog

from paceline.engine.ports import StepTimes
from paceline.engine.request import Request, StepOutcome
from paceline.errors import DrafterError, EngineError
from paceline.server.observing.exchange import Exchange

NAME = "paceline.server"
_OWN = ("paceline", "uvicorn", "uvicorn.error")
_SHARED: list[Any] = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,  # plain: others would write local variables, and prompts are among them
]


def configure(level: str, stream: TextIO | None = None) -> None:
    """Have the whole process log: JSON lines, or lines to be read where a terminal shows them."""
    out = stream or sys.stderr
    renderer: Any = structlog.processors.JSONRenderer(serializer=_as_json)
    if out.isatty():
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)  # a drafter that is left out, above all
    for name in _OWN:
        own = logging.getLogger(name)
        own.setLevel(level.upper())
        own.handlers, own.propagate = [], True  # another server of this process may have had them


def _as_json(event: dict[str, Any], **options: Any) -> str:
    """A line; what it is about comes first."""
    first = {name: event[name] for name in ("timestamp", "level", "logger", "event") if name in event}
    return json.dumps(first | event, ensure_ascii=False, **options)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is worth a line: that a server which is ended cancels its streams is not, a traceback each."""
    return record.exc_info is None or not isinstance(record.exc_info[1], asyncio.CancelledError)


class Journal:
    """Writes down requests and failures; an `EngineListener`, for the steps that fail.

    Args:
        text_of: the text of token ids, if prompts and outputs are to be logged.
    """

    def __init__(self, text_of: Callable[[Sequence[int]], str] | None = None) -> None:
        self._text_of = text_of
        self._log = structlog.wrap_logger(
            logging.getLogger(NAME),
            processors=[
                structlog.stdlib.filter_by_level,
                *_SHARED,
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        self._cause: BaseException | None = None  # of the failure that was logged last

    def closed(self, exchange: Exchange, handler: str) -> None:
        """A request has ended; those that decoded nothing are for who looks closely."""
        write = self._log.info if exchange.samples or exchange.outcome >= 400 else self._log.debug
        write("request", **_of_exchange(exchange, handler), **self._texts(exchange))

    def failed(self, error: BaseException, ids: Sequence[object]) -> None:
        """Something failed that should not; `ids` say for whom."""
        self._log.error("failure", request_ids=list(ids), error=type(error).__name__, exc_info=error)

    def admitted(self, request: Request) -> None:
        """See `EngineListener`."""

    def preempted(self, request: Request) -> None:
        """See `EngineListener`."""

    def stepped(self, outcomes: Sequence[StepOutcome], times: StepTimes) -> None:
        """See `EngineListener`."""
        self._cause = None

    def finished(self, request: Request) -> None:
        """See `EngineListener`: the traceback of a failed step is written once, whoever took part in it."""
        error = request.error
        if not isinstance(error, EngineError | DrafterError):
            return
        cause = error.__cause__ or error
        if cause is not self._cause:
            self._cause = cause
            self.failed(cause, [request.id])

    def _texts(self, exchange: Exchange) -> dict[str, Any]:
        if self._text_of is None or not exchange.samples:
            return {}
        first = exchange.samples[0]
        return {
            "prompt": self._text_of(first.tokens[: first.num_prompt_tokens]),
            "outputs": [request.text for request in exchange.samples],
        }


def _of_exchange(exchange: Exchange, handler: str) -> dict[str, Any]:
    about: dict[str, Any] = {
        "id": exchange.id,
        "method": exchange.method,
        "endpoint": handler,
        "status": exchange.outcome,
        "ms": round(1000 * exchange.seconds, 3),
    }
    return about | (_of_samples(exchange) if exchange.samples else {})


def _of_samples(exchange: Exchange) -> dict[str, Any]:
    """Figures of all samples together; None where there is none."""
    samples = exchange.samples
    first = min([r.times.first_token for r in samples if r.times.first_token is not None], default=None)
    seconds = sum([request.stats.decode_seconds for request in samples])
    num_tokens = sum([request.num_output_tokens for request in samples])
    accepted: dict[str, int] = {}
    for request in samples:
        for name, drafter in request.stats.drafters.items():
            accepted[name] = accepted.get(name, 0) + drafter.num_accepted_draft_tokens
    reasons = [request.finish_reason or "abort" for request in samples]
    return {
        "engine_ids": [request.id for request in samples],
        "prompt_tokens": sum([request.num_input_tokens for request in samples]),
        "cached_tokens": sum([request.stats.num_cached_tokens for request in samples]),
        "output_tokens": num_tokens,
        "ttft_ms": None if first is None else round(1000 * (first - exchange.arrived), 3),
        "tokens_per_second": round(num_tokens / seconds, 1) if seconds else None,
        "drafter_shares": {name: round(count / num_tokens, 3) for name, count in accepted.items() if count},
        "finish_reason": reasons[0] if len(set(reasons)) == 1 else reasons,
    }
