"""From messages to the token ids of a prompt, by the model's own chat template."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase

from paceline.errors import RequestError
from paceline.server.chat.format import ChatFormat
from paceline.server.chat.history import history, merged
from paceline.server.errors import ApiError
from paceline.server.schemas.chat import ChatBody
from paceline.text.chat import Conversation, has_pictures, template_ids
from paceline.text.tokenizer import Tokenizer

# What `apply_chat_template` reads itself is not for the template, and not for strangers.
_RESERVED = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {
    "messages",
    "return_assistant_tokens_mask",
    "sanitize_control_tokens",
}


@dataclass(frozen=True)
class Rendered:
    """A prompt, and what was done to get it."""

    ids: list[int]
    headers: dict[str, str] = field(default_factory=dict)


# Token ids of messages with pictures, with tools, and how the template is to be applied.
See = Callable[[Conversation, Sequence[Any], Mapping[str, Any]], list[int]]


def rendered(
    tokenizer: Tokenizer | None, form: ChatFormat, body: ChatBody, tools: Sequence[Any], see: See | None = None
) -> Rendered:
    """The prompt of a conversation. System messages that the template refuses where they are go to the front.

    `see` makes ids of one with pictures, which a format without them refuses.

    Raises:
        ApiError: there is no template, or what it is given is not allowed.
        RequestError: the template refuses the messages.
    """
    if tokenizer is None or not form.has_template:
        allowed = "/v1/completions, or a server with --chat-template"
        raise ApiError(400, f"this model has no chat template; allowed: {allowed}", "messages")
    messages, how = history(body.messages, form), _how(body, form)
    template = see if see is not None and has_pictures(messages) else partial(template_ids, tokenizer)
    try:
        return Rendered(template(messages, tools, how))
    except RequestError:
        together = merged(messages)
        if together == messages:
            raise
        ids = template(together, tools, how)
        return Rendered(ids, {"x-paceline-system-messages": "merged"})


def _how(body: ChatBody, form: ChatFormat) -> dict[str, Any]:
    given = body.chat_template_kwargs or {}
    for name in given:
        if name in _RESERVED:
            place = f"chat_template_kwargs.{name}"
            raise ApiError(400, f"{place} is not supported; allowed: variables of the model's template", place)
    effort = {} if body.reasoning_effort is None else {"reasoning_effort": body.reasoning_effort}
    own: Mapping[str, Any] = {} if form.template is None else {"chat_template": form.template}
    return {**effort, **given, **own, **_ending(body)}


def _ending(body: ChatBody) -> dict[str, bool]:
    """Whether the last message is gone on with, or a new one of the assistant's begun."""
    goes_on = bool(body.continue_final_message)
    begins = not goes_on if body.add_generation_prompt is None else body.add_generation_prompt
    if goes_on and begins:
        allowed = "add_generation_prompt: false beside it"
        raise ApiError(400, f"continue_final_message is true; allowed: {allowed}", "continue_final_message")
    if goes_on and body.messages[-1].role != "assistant":
        allowed = "with a last message of the assistant's"
        raise ApiError(400, f"continue_final_message is true; allowed: {allowed}", "continue_final_message")
    return {"add_generation_prompt": begins, "continue_final_message": goes_on}
