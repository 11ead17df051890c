"""Conversations to token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paceline.errors import RequestError, first_line
from paceline.text.pictures import Pictured, open_pictures
from paceline.text.processor import Processor
from paceline.text.tokenizer import Tokenizer

Message = Mapping[str, Any]  # "role", "content", and what else the template reads
Conversation = Sequence[Message]
_PICTURES = ("image", "image_url", "input_image")


def is_batch(messages: Sequence[Message] | Sequence[Conversation]) -> bool:
    """Whether these are several conversations."""
    return bool(messages) and not isinstance(messages[0], Mapping)


def chat_ids(
    tokenizer: Tokenizer,
    messages: Conversation,
    tools: Sequence[Any] | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> list[int]:
    """Ids of a conversation, ready for the assistant's turn; a last message of the assistant's is gone on with.

    Args:
        tokenizer: it has the template.
        messages: role and content of each; content is a text or a list of text parts, as in OpenAI's API.
        tools: functions or JSON schemas that the template may describe to the model.
        template_options: further variables for the template, `enable_thinking=False`, say.

    Raises:
        RequestError: the model has no template, or its template refuses the messages.
    """
    if not (tokenizer.inner.chat_template or (template_options or {}).get("chat_template")):
        raise RequestError("this model has no chat template; allowed: generate with a plain prompt")
    plain = [_plain(message, f"messages[{i}]") for i, message in enumerate(messages)]
    if not plain:
        raise RequestError("messages is empty; allowed: at least one message")
    goes_on = plain[-1]["role"] == "assistant"
    how: dict[str, Any] = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on}
    return template_ids(tokenizer, plain, tools, {**how, **(template_options or {})})


def has_pictures(messages: Conversation) -> bool:
    """Whether a message has a part that is a picture."""
    contents = [message.get("content") for message in messages if isinstance(message, Mapping)]
    return any(is_picture(part) for content in contents if isinstance(content, list | tuple) for part in content)


def chat_pictured(
    processor: Processor,
    messages: Conversation,
    tools: Sequence[Any] | None = None,
    template_options: Mapping[str, Any] | None = None,
) -> Pictured:
    """The same of a conversation with pictures, as text in which placeholders stand for them.

    A picture is a part `{"type": "image", "image": …}` of what `open_picture` knows, or OpenAI's with a `data:` URL.

    Raises:
        RequestError: as in `chat_ids`, or a picture that cannot be read.
    """
    goes_on = messages[-1].get("role") == "assistant"
    how = {"add_generation_prompt": not goes_on, "continue_final_message": goes_on}
    return template_pictured(processor, messages, tools, {**how, **(template_options or {})})


def template_pictured(
    processor: Processor, messages: Conversation, tools: Sequence[Any] | None, how: Mapping[str, Any]
) -> Pictured:
    """What the chat template makes of messages with pictures; `how` goes to `apply_chat_template`.

    Raises:
        RequestError: the template refuses them, or a picture cannot be read.
    """
    parts = [{**each, "content": _parts(each, f"messages[{i}]")} for i, each in enumerate(messages)]
    found = [part for each in parts for part in each["content"] if "image" in part]
    opened = open_pictures([part.pop("image") for part in found], "pictures of the messages")
    return processor.write(parts, opened, tools, how)


def _parts(message: Message, name: str) -> list[dict[str, Any]]:
    """A message's content as parts, of text and of pictures."""
    content = message.get("content")
    if not isinstance(content, list | tuple):
        text = _plain(message, name).get("content")
        return [] if text is None else [{"type": "text", "text": text}]
    named = [(part, f"{name}.content[{i}]") for i, part in enumerate(content)]
    return [_picture(p, n) if is_picture(p) else {"type": "text", "text": _text(p, n)} for p, n in named]


def is_picture(part: object) -> bool:
    """Whether a part of a content is a picture."""
    return isinstance(part, Mapping) and part.get("type") in _PICTURES


def _picture(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = next((part[key] for key in ("image", "image_url", "url", "path") if part.get(key) is not None), None)
    if isinstance(found, Mapping):  # OpenAI's
        found = found.get("url")
    if found is None:
        raise RequestError(f"{name} has no picture; allowed: {{'type': 'image', 'image': …}}")
    return {"type": "image", "image": found}


def template_ids(
    tokenizer: Tokenizer, messages: Conversation, tools: Sequence[Any] | None, how: Mapping[str, Any]
) -> list[int]:
    """What the chat template makes of messages as they are; `how` goes to transformers' `apply_chat_template`.

    Raises:
        RequestError: the template refuses them.
    """
    try:
        ids = tokenizer.inner.apply_chat_template(
            list(messages), tools=list(tools) if tools else None, tokenize=True, return_dict=True, **how
        )["input_ids"]
    except Exception as error:  # of the template, whose language may raise anything
        raise RequestError(f"the model's chat template refused the messages: {first_line(error)}") from error
    return list(ids)


def _plain(message: object, name: str) -> dict[str, Any]:
    """A message whose content is a text."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RequestError(f"{name} is {message!r}; allowed: a mapping with 'role' and 'content'")
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return dict(message)
    if not isinstance(content, Sequence):
        raise RequestError(f"{name} has content {content!r}; allowed: a text, or a list of text parts")
    return {**message, "content": "\n".join(_text(part, f"{name}.content[{i}]") for i, part in enumerate(content))}


def _text(part: object, name: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise RequestError(f"{name} is {kind!r}; allowed: {{'type': 'text', 'text': …}}, this model reads text alone")
