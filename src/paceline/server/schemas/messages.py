"""`POST /v1/messages`, Anthropic's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from paceline.server.schemas.sampling import Body, SamplingBody, Strings

Content = str | list[dict[str, Any]]


class Turn(Body):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: Content


class ToolChoice(Body):
    """Which tools may be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether to think; how much is for the model's template."""

    type: Literal["enabled", "disabled", "adaptive"]


class OutputFormat(Body):
    """The form of the output."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """How to answer."""

    effort: str | None = None
    format: OutputFormat | None = None


class MessagesBody(SamplingBody):
    """A conversation to go on with."""

    messages: Annotated[list[Turn], Field(min_length=1)]
    system: Content | None = None
    stop_sequences: Strings | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    n: Literal[1] | None = None
    metadata: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # What a client of Anthropic's may send and cannot change a byte here: nothing is cached, edited or run for it.
    betas: list[str] | None = None
    context_management: dict[str, Any] | None = None
