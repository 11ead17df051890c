"""Bodies of agents' APIs with anything anywhere: read, or refused by the place; never an error of our own."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from paceline.errors import PacelineError
from paceline.server.chat.format import ChatFormat
from paceline.server.chat.history import history
from paceline.server.chat.tools import tool_use
from paceline.server.errors import ApiError
from paceline.server.messages.reading import Reading as MessagesReading
from paceline.server.responses.reading import Reading as ResponsesReading
from paceline.server.schemas.chat import ChatBody
from paceline.server.schemas.messages import MessagesBody
from paceline.server.schemas.responses import ResponsesBody

from .conftest import RESPONSE_TEMPLATE

KEYS = st.sampled_from(
    [
        "type",
        "role",
        "content",
        "text",
        "name",
        "id",
        "call_id",
        "arguments",
        "output",
        "input",
        "tool_use_id",
        "input_schema",
        "parameters",
        "function",
        "tool_calls",
        "description",
        "summary",
        "thinking",
        "reasoning",
        "$ref",
        "properties",
        "schema",
        "format",
        "effort",
    ]
)
WORDS = st.sampled_from(
    [
        "user",
        "assistant",
        "system",
        "developer",
        "tool",
        "function",
        "message",
        "function_call",
        "function_call_output",
        "reasoning",
        "text",
        "input_text",
        "output_text",
        "refusal",
        "tool_use",
        "tool_result",
        "tool_reference",
        "thinking",
        "image",
        "custom",
        "auto",
        "any",
        "required",
        "none",
        "web_search",
        "json_schema",
        "{}",
        "[1]",
        "#",
        "é",
    ]
)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), WORDS, st.just(""))
VALUES: Any = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)
OBJECTS: Any = st.dictionaries(KEYS, VALUES, max_size=6)
LISTS = st.one_of(VALUES, st.lists(OBJECTS, min_size=1, max_size=4))
TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.lists(OBJECTS, max_size=3)})
    | OBJECTS,
    min_size=1,
    max_size=4,
)
SHARED = {"tools": LISTS, "tool_choice": VALUES, "response_format": VALUES}
FORM = ChatFormat(has_template=True, takes_tools=True, response_template=RESPONSE_TEMPLATE)


def read(schema: type[BaseModel], body: dict[str, Any]) -> Any:
    """The body's conversation as far as it can be read; None if it is refused."""
    try:
        asked: Any = schema.model_validate(body)
        chat = asked
        if isinstance(asked, ResponsesBody):
            chat = ResponsesReading(asked).chat
        elif isinstance(asked, MessagesBody):
            chat = MessagesReading(asked).chat
        tool_use(chat, FORM)
        return history(chat.messages, FORM)
    except (ApiError, PacelineError, ValidationError):
        return None


@settings(max_examples=60)
@given(st.fixed_dictionaries({"input": LISTS}, optional={**SHARED, "instructions": VALUES, "text": VALUES}))
def test_responses(body: dict[str, Any]) -> None:
    read(ResponsesBody, body)


@settings(max_examples=60)
@given(st.fixed_dictionaries({"messages": TURNS}, optional={**SHARED, "system": LISTS, "thinking": VALUES}))
def test_messages(body: dict[str, Any]) -> None:
    read(MessagesBody, body)


@settings(max_examples=60)
@given(st.fixed_dictionaries({"messages": TURNS}, optional=SHARED))
def test_chats(body: dict[str, Any]) -> None:
    found = read(ChatBody, body)
    assert found is None or all(isinstance(message["content"], str) for message in found)
