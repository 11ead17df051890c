"""What the OpenAPI schema says of all answers: errors, in the form of OpenAI or of Anthropic, and streams."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None  # the field
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's form."""

    error: Problem


class AnthropicProblem(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicErrorBody(BaseModel):
    """Anthropic's form."""

    type: Literal["error"]
    error: AnthropicProblem


def _responses(model: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    refused, failed = "What was sent cannot be served, or not now.", "The server failed, or takes no requests."
    return {"4XX": {"model": model, "description": refused}, "5XX": {"model": model, "description": failed}}


ERRORS, ANTHROPIC_ERRORS = _responses(ErrorBody), _responses(AnthropicErrorBody)
STREAMS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}  # beside JSON
