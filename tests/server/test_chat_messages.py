"""Messages in every form that clients send become one prompt, or an error that names the place."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from paceline import LLM
from paceline.errors import ConfigError
from paceline.server.chat.format import ChatFormat, find_format, of_family
from paceline.server.chat.tools import tool_use
from paceline.server.errors import ApiError
from paceline.server.rendering import Rendered, rendered
from paceline.server.schemas.chat import ChatBody

from .conftest import RESPONSE_TEMPLATE, TEMPLATE

CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": '{"city": "Rome"}'}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
PARTS = "{% for m in messages %}{{ m.role }}: {% for p in m.content %}{{ p.text }}{% endfor %}{{ '\n' }}{% endfor %}"


def prompt(bundled: LLM, messages: Any, template: str = TEMPLATE, **body: Any) -> tuple[str, Rendered]:
    tokenizer = bundled.runtime.factory.tokenizer
    form = find_format(tokenizer, template, RESPONSE_TEMPLATE, "")
    asked = ChatBody.model_validate({"messages": messages, **body})
    found = rendered(tokenizer, form, asked, tool_use(asked, form).described)
    return tokenizer.decode(found.ids), found


ACCEPTED: list[tuple[Any, str]] = [
    ([{"role": "user", "content": "a"}], "user: a\nassistant:"),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}], "user: a\nb\nassistant:"),
    ([{"role": "user", "content": []}], "user: \nassistant:"),
    ([{"role": "user", "content": "   "}], "user:    \nassistant:"),
    ([{"role": "user"}], "user: \nassistant:"),
    ([{"role": "assistant", "content": None}, {"role": "user", "content": "a"}], "assistant: \nuser: a\nassistant:"),
    ([{"role": "assistant", "content": "", "tool_calls": []}], "assistant: \nassistant:"),
    ([{"role": "developer", "content": "a"}], "system: a\nassistant:"),
    ([{"role": "function", "name": "f", "content": "7"}], "tool: 7\nassistant:"),
    (
        [
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": [{"type": "text", "text": "7"}]},
        ],
        'assistant: <tool_call>{"name": "f", "arguments": {"city": "Rome"}}</tool_call>\ntool: 7\nassistant:',
    ),
    ([{"role": "assistant", "content": "b", "reasoning": "a"}], "assistant: <think>a</think>b\nassistant:"),
    ([{"role": "assistant", "content": "b", "reasoning_content": "a"}], "assistant: <think>a</think>b\nassistant:"),
    ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}], "assistant: no\nassistant:"),
]


@pytest.mark.parametrize(("messages", "wanted"), ACCEPTED)
def test_a_message_is_accepted(bundled: LLM, messages: Any, wanted: str) -> None:
    text, found = prompt(bundled, messages)
    assert text == wanted
    assert found.headers == {}


REFUSED: list[tuple[Any, str, str]] = [
    ([{"role": "oracle", "content": "a"}], "messages[0].role", "'oracle'; allowed: system, user, assistant, tool"),
    (
        [
            {"role": "user", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "image_url"}]},
        ],
        "messages[1].content[1]",
        "'image_url'; allowed: text parts",
    ),
    ([{"role": "user", "content": [{"type": "input_audio"}]}], "messages[0].content[0]", "'input_audio'"),
    ([{"role": "user", "content": [7]}], "messages[0].content[0]", "'int'"),
    (
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}],
        "messages[0].tool_calls[0].function.arguments",
        "allowed: a JSON object",
    ),
    ([{"role": "assistant", "function_call": {"name": "f"}}], "messages[0].function_call", "allowed: tool_calls"),
]


@pytest.mark.parametrize(("messages", "param", "told"), REFUSED)
def test_a_message_is_refused_by_its_place(bundled: LLM, messages: Any, param: str, told: str) -> None:
    with pytest.raises(ApiError) as caught:
        prompt(bundled, messages)
    assert (caught.value.status_code, caught.value.param) == (400, param)
    assert told in str(caught.value.detail)


def test_system_messages_that_a_template_refuses_go_to_the_front(bundled: LLM) -> None:
    messages = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "developer", "content": [{"type": "text", "text": "c"}]},
    ]
    text, found = prompt(bundled, messages)
    assert text == "system: a\n\nc\nuser: b\nassistant:"
    assert found.headers == {"x-paceline-system-messages": "merged"}
    lenient = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    text, found = prompt(bundled, messages, lenient)
    assert text == "system: a\nuser: b\nsystem: c\n"
    assert found.headers == {}


def test_parts_are_given_to_templates_that_read_parts_alone(bundled: LLM) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert prompt(bundled, messages, PARTS)[0] == "user: ab\n"
    assert prompt(bundled, [{"role": "user", "content": "a"}], PARTS)[0] == "user: a\n"


@pytest.mark.parametrize(
    ("written", "is_mapping"),
    [
        ("{{ a | tojson }}", True),
        ("{{ a }}", False),
        ("{{ '' + a }}", False),
        ("{% for k, v in a.items() %}{{ k }}={{ v }}{% endfor %}", True),
        ("{% if a is string %}{{ a }}{% else %}{{ a | tojson }}{% endif %}", False),
    ],
)
def test_arguments_are_written_as_the_template_wants_them(bundled: LLM, written: str, is_mapping: bool) -> None:
    inner = "{% for call in m.tool_calls or [] %}{% set a = call.function.arguments %}" + written + "{% endfor %}"
    template = "{% for m in messages %}{{ m.content }}" + inner + "{% endfor %}"
    assert find_format(bundled.runtime.factory.tokenizer, template, None, "").wants_mappings is is_mapping
    text, _ = prompt(bundled, [{"role": "assistant", "tool_calls": [CALL]}], template)
    assert "Rome" in text
    assert "\\" not in text


def test_tools_and_variables_reach_the_template(bundled: LLM) -> None:
    text, _ = prompt(bundled, [{"role": "user", "content": "a"}], tools=[TOOL])
    described = json.loads(text.partition("tool: ")[2].partition("\n")[0])
    assert described == TOOL
    template = "{{ reasoning_effort }} {{ mood }} {% for m in messages %}{{ m.content }}{% endfor %}"
    given = {"reasoning_effort": "low", "chat_template_kwargs": {"mood": "calm"}}
    assert prompt(bundled, [{"role": "user", "content": "a"}], template, **given)[0] == "low calm a"


@pytest.mark.parametrize(
    "name", ["chat_template", "tokenize", "documents", "tools", "messages", "continue_final_message"]
)
def test_a_request_brings_no_template_of_its_own(bundled: LLM, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        prompt(bundled, [{"role": "user", "content": "a"}], chat_template_kwargs={name: "x"})
    assert caught.value.param == f"chat_template_kwargs.{name}"


def test_a_last_message_of_the_assistant_is_gone_on_with_if_that_is_asked(bundled: LLM) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert prompt(bundled, messages)[0] == "user: a\nassistant: b\nassistant:"
    asked = {"continue_final_message": True, "add_generation_prompt": False}
    assert prompt(bundled, messages, **asked)[0] == "user: a\nassistant: b"
    with pytest.raises(ApiError, match="add_generation_prompt: false"):
        prompt(bundled, messages, continue_final_message=True, add_generation_prompt=True)
    with pytest.raises(ApiError, match="last message of the assistant's"):
        prompt(bundled, messages[:1], continue_final_message=True)
    assert prompt(bundled, messages[:1], add_generation_prompt=False)[0] == "user: a\n"


def test_without_a_template_completions_are_named(bundled: LLM) -> None:
    tokenizer = bundled.runtime.factory.tokenizer
    form = find_format(tokenizer, None, None, "LlamaForCausalLM")
    body = ChatBody.model_validate({"messages": [{"role": "user", "content": "a"}]})
    with pytest.raises(ApiError, match="allowed: /v1/completions, or a server with --chat-template"):
        rendered(tokenizer, form, body, [])


CHOICES: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [], "tool_choice": "required"}, "tool_choice", "'required'"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", "required, f"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "allowed: none, auto, required"),
    ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice", "sometimes"),
    ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "response_format", "no place for a call"),
]


@pytest.mark.parametrize(("given", "param", "told"), CHOICES)
def test_a_choice_that_there_is_not_is_refused(given: dict[str, Any], param: str, told: str) -> None:
    form = ChatFormat(has_template=True, takes_tools=True, response_template=RESPONSE_TEMPLATE)
    with pytest.raises(ApiError) as caught:
        tool_use(ChatBody.model_validate({"messages": [{"role": "user"}], **given}), form)
    assert caught.value.param == param
    assert told in str(caught.value.detail)


def test_tools_that_a_model_cannot_use_are_refused() -> None:
    body = ChatBody.model_validate({"messages": [{"role": "user"}], "tools": [TOOL]})
    with pytest.raises(ApiError, match="no place for them"):
        tool_use(body, ChatFormat(has_template=True))
    with pytest.raises(ApiError, match="no response template"):
        tool_use(body, ChatFormat(has_template=True, takes_tools=True))


@pytest.mark.parametrize("given", [{}, {"tools": []}, {"tools": None, "tool_choice": None}, {"tool_choice": "auto"}])
def test_no_tools_are_none(given: dict[str, Any]) -> None:
    body = ChatBody.model_validate({"messages": [{"role": "user"}], **given})
    assert tool_use(body, ChatFormat()).described == []
    none = ChatBody.model_validate({"messages": [{"role": "user"}], "tools": [TOOL], "tool_choice": "none"})
    assert tool_use(none, ChatFormat()).described == []


def test_references_of_a_forced_call_still_find_their_target() -> None:
    parameters = {
        "$id": "https://example.org/x",
        "$defs": {"City": {"enum": ["Rome"]}},
        "properties": {"city": {"$ref": "#/$defs/City"}, "more": {"items": [{"$ref": "#"}]}},
    }
    two = [{"type": "function", "function": {"name": name, "parameters": parameters}} for name in ("f", "g")]
    body = ChatBody.model_validate({"messages": [{"role": "user"}], "tools": two, "tool_choice": "required"})
    schema = tool_use(body, ChatFormat(takes_tools=True)).forced
    assert schema is not None
    second = schema["anyOf"][1]["properties"]["arguments"]
    assert second["properties"]["city"]["$ref"] == "#/anyOf/1/properties/arguments/$defs/City"
    assert second["properties"]["more"]["items"][0]["$ref"] == "#/anyOf/1/properties/arguments"
    assert "$id" not in second


def test_templates_that_cannot_be_read_are_refused_at_once(bundled: LLM) -> None:
    tokenizer = bundled.runtime.factory.tokenizer
    with pytest.raises(ConfigError, match="no Jinja in line 2"):
        find_format(tokenizer, "\n{% for %}", None, "")
    with pytest.raises(ConfigError, match="response template cannot be read"):
        find_format(tokenizer, TEMPLATE, {"fields": {}}, "")


def test_a_family_without_a_response_template_has_that_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_family("Qwen3ForCausalLM")
    assert found is not None
    assert set(found["fields"]) == {"reasoning_content", "tool_calls", "content"}
    assert of_family("LlamaForCausalLM") is None
    assert of_family("") is None
    monkeypatch.setitem(sys.modules, "transformers.cli.serving.utils", None)  # a release without it
    assert of_family("Qwen3ForCausalLM") is None
