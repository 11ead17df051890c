"""`POST /tokenize` and `/detokenize`, in vLLM's form and in llama-server's."""

from __future__ import annotations

from typing import Any

from paceline.server.schemas.chat import Message
from paceline.server.schemas.sampling import Body


class TokenizeBody(Body):
    """A text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None  # llama-server's name
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(Body):
    """Token ids."""

    model: str | None = None
    tokens: list[int]
