"""From messages to the token ids of a prompt, by the model's own chat template."""

from __future__ import annotations

from typing import Any

from paceline.server.schemas.chat import ChatBody
from paceline.server.service import Service
from paceline.text.chat import chat_ids


def rendered(service: Service, body: ChatBody) -> list[int]:
    """The ids of a conversation.

    Raises:
        RequestError: the model has no template, or it refuses the messages.
    """
    goes_on = bool(body.continue_final_message)
    options: dict[str, Any] = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on}
    if body.add_generation_prompt is not None:
        options["add_generation_prompt"] = body.add_generation_prompt
    if service.settings.chat_template is not None:
        options["chat_template"] = service.settings.chat_template
    options |= body.chat_template_kwargs or {}
    messages = [message.model_dump(exclude_unset=True) for message in body.messages]
    return chat_ids(service.runtime.factory.tokenizer, messages, None, options)
