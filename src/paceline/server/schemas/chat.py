"""`POST /v1/chat/completions`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from paceline.server.schemas.sampling import Body, SamplingBody


class Message(Body):
    """One turn of a conversation; what else it holds is for the model's template."""

    role: str
    content: str | list[Any] | None = None


class ChatBody(SamplingBody):
    """A conversation to go on with."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
