"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from paceline.server.schemas.sampling import Body, NumLogprobs, SamplingBody

ToolName = Annotated[str, Field(min_length=1, max_length=256)]


class CalledFunction(Body):
    """A function that was called: OpenAI writes the arguments as JSON in a string."""

    name: ToolName
    arguments: str | dict[str, Any] | None = None


class ToolCall(Body):
    """A call in the history."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction


class Message(Body):
    """One turn of a conversation; what else it holds is for the model's template."""

    role: str
    content: str | list[Any] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class Function(Body):
    """What may be called; `parameters` is a JSON schema."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Body):
    """A tool of the caller's."""

    type: Annotated[str, Field(pattern="^function$")] = "function"
    function: Function


class ChatBody(SamplingBody):
    """A conversation to go on with."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None
    prompt_logprobs: NumLogprobs | None = None
    add_special_tokens: Literal[False] | None = None  # they are the template's business
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None  # vLLM's
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
