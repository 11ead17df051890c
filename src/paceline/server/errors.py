"""Errors as clients of OpenAI's API read them: a status, and a body that says what, got, allowed.

The body is `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`; at the paths of Anthropic's API it is
`{"type": "error", "error": {"type": ..., "message": ...}}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import HTTPException

from paceline.errors import (
    ConfigError,
    ContextLengthError,
    DeadlineError,
    ModelError,
    PacelineError,
    RequestError,
    StateError,
)
from paceline.server.observing.exchange import current_id

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
}
MESSAGES = "/v1/messages"  # where Anthropic's clients ask
_ANTHROPIC_TYPES = {**_TYPES, 413: "request_too_large", 500: "api_error", 503: "overloaded_error"}
# What would fail again: OpenAI's clients repeat these two statuses unless they are told.
_NOT_TO_REPEAT = (408, 500)


class ApiError(HTTPException):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        told = {"x-should-retry": "false"} if status in _NOT_TO_REPEAT else {}
        super().__init__(status, message, {**told, **(headers or {})})
        self.param, self.code = param, code

    def body(self, path: str = "") -> dict[str, Any]:
        """What the client reads, in the form of the API that the path belongs to."""
        if path.startswith(MESSAGES):
            kind = _ANTHROPIC_TYPES.get(self.status_code, "invalid_request_error")
            return {"type": "error", "error": {"type": kind, "message": self.detail}}
        kind = _TYPES.get(self.status_code, "invalid_request_error")
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: Exception, request_id: str = "") -> ApiError:
    """An error of the library's, or of nobody's, for a client: no traceback, and no text of others."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, DeadlineError):
        return ApiError(408, str(error), "deadline_ms", "deadline_exceeded")
    if isinstance(error, ConfigError | RequestError):
        message = str(error)
        return ApiError(400, message, _param_in(message), code_of(error))
    if isinstance(error, StateError):
        return ApiError(503, "the engine has ended, and takes no requests")
    shown = current_id(request_id)
    if isinstance(error, ModelError | PacelineError):
        return ApiError(500, f"the step that decoded this request failed; request id {shown}")
    return ApiError(500, f"internal error; request id {shown}")


def code_of(error: PacelineError) -> str | None:
    """OpenAI's code for an error, where clients look for one."""
    return "context_length_exceeded" if isinstance(error, ContextLengthError) else None


def of_validation(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """FastAPI's findings about a body, of which the first is told: the field, what was sent, what is allowed."""
    first = errors[0]
    if first["type"] == "missing":
        param = _path(first["loc"][1:], body, missing=first["loc"][-1])
        return ApiError(400, f"{param} is missing", param)
    param, given = _path(first["loc"][1:], body), first.get("input")
    got = "" if isinstance(given, dict | list) else f" is {_short(given)}"
    allowed = str(first["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    return ApiError(400, f"{param or 'the body'}{got}; allowed: {allowed}", param or None)


def _path(place: Sequence[str | int], value: Any, missing: str | int | None = None) -> str:
    """The name of a place in a body; pydantic puts the alternatives of a union in between, which are no part of it."""
    text = ""
    for part in place:
        if isinstance(value, list) and isinstance(part, int):
            text, value = f"{text}[{part}]", value[part]
        elif isinstance(value, dict) and (part in value or part == missing):
            text, value = f"{text}.{part}" if text else str(part), value.get(part)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _param_in(message: str) -> str | None:
    """The field that a message of the library's begins with: "temperature is -1; allowed: …"."""
    found = re.match(r"(?!the |a |an )([a-z][a-z0-9_]*) .*is ", message)
    return found[1] if found else None
