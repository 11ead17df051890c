"""`POST /v1/responses`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from paceline.server.schemas.sampling import Body, SamplingBody


class TextFormat(Body):
    """The form of the output; the fields of a schema stand beside its type."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    json_schema: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """How the text is to be."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(Body):
    """How much to think."""

    effort: str | None = None


class ResponsesBody(SamplingBody):
    """A history to go on with; nothing is kept between requests."""

    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    include: list[str] | None = None
    stream_options: dict[str, Any] | None = None  # type: ignore[assignment]  # usage is always told at the end
    truncation: Literal["disabled"] | None = None
    max_tool_calls: int | None = None  # of tools that a server runs: it runs none
    chat_template_kwargs: dict[str, Any] | None = None
    # What would need something kept, or is not done.
    background: Literal[False] | None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    top_logprobs: Literal[0] | None = None
    n: Literal[1] | None = None
    metadata: dict[str, Any] | None = None
