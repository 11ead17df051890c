"""The Messages API by Anthropic's client, and as Claude Code sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message

from paceline import LLM

from . import agent_tools


@pytest.fixture
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        yield client


FOX: Any = [{"role": "user", "content": "Tell me of a fox."}]
PROMPT = "system: Be kind.\nuser: Tell me of a fox.\nassistant:"
GREEDY: Any = {"extra_body": {"temperature": 0}}  # the client no longer names sampling parameters
GIVEN: dict[str, Any] = {"model": "paceline-tiny", "max_tokens": 30, "system": "Be kind.", "messages": FOX}


def test_a_text_is_what_generate_gives(client: anthropic.Anthropic, bundled: LLM) -> None:
    plain = bundled.generate(PROMPT, drafters="none", max_tokens=30)
    answer = client.messages.create(**GIVEN, **GREEDY)
    assert [block.text for block in answer.content if block.type == "text"] == [plain.text]
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 30
    whole = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert whole == len(plain.origin.prompt_token_ids)  # type: ignore[union-attr]
    with client.messages.stream(**GIVEN, **GREEDY) as stream:
        assert "".join(stream.text_stream) == plain.text
        last = stream.get_final_message()
    assert last.stop_reason == "max_tokens"
    assert last.usage.output_tokens == 30


def test_a_stop_sequence_is_named(client: anthropic.Anthropic, bundled: LLM) -> None:
    plain = bundled.generate(PROMPT, drafters="none", max_tokens=30)
    stop = plain.text[5:9]
    answer = client.messages.create(**GIVEN, **GREEDY, stop_sequences=["never this", stop])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert answer.content[0].text == plain.text[: plain.text.index(stop)]  # type: ignore[union-attr]


def test_a_forced_call_comes_in_fragments_and_goes_back(client: anthropic.Anthropic) -> None:
    given: Any = {**GIVEN, "max_tokens": 60, "tools": agent_tools.MESSAGES}
    choice: Any = {"type": "tool", "name": "get_weather"}
    answer = client.messages.create(**given, tool_choice=choice)
    (call,) = answer.content
    assert (call.type, answer.stop_reason) == ("tool_use", "tool_use")
    assert agent_tools.is_weather(call.input)  # type: ignore[union-attr,arg-type]
    with client.messages.stream(**given, tool_choice={"type": "any"}) as stream:
        events = list(stream)
        (streamed,) = stream.get_final_message().content
    fragments = [event.partial_json for event in events if event.type == "input_json"]
    assert json.loads("".join(fragments)) == streamed.input  # type: ignore[union-attr]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}  # type: ignore[union-attr]
    turns = [*FOX, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    last = client.messages.create(**{**given, "messages": turns, "max_tokens": 4})
    assert last.content[0].type == "text"


def test_the_asynchronous_client_streams(url: str, bundled: LLM) -> None:
    plain = bundled.generate(PROMPT, drafters="none", temperature=0.8, seed=3, max_tokens=30)

    async def read() -> Message:
        async with anthropic.AsyncAnthropic(base_url=url, api_key="none") as client:
            sampled: Any = {"extra_body": {"temperature": 0.8, "seed": 3}}
            async with client.messages.stream(**GIVEN, **sampled) as stream:
                return await stream.get_final_message()

    assert asyncio.run(read()).content[0].text == plain.text  # type: ignore[union-attr]


def test_thinking_is_a_block_of_its_own(client: anthropic.Anthropic) -> None:
    thinks: Any = {"type": "enabled", "budget_tokens": 1024}
    given: Any = {**GIVEN, "max_tokens": 8}
    assert [block.type for block in client.messages.create(**given, thinking=thinks).content] == ["thinking"]
    with client.messages.stream(**given, thinking=thinks) as stream:
        events = list(stream)
    assert {event.type for event in events} >= {"content_block_start", "thinking", "content_block_stop"}


# As Claude Code sends it, texts shortened.
CLAUDE_CODE: dict[str, Any] = {
    "model": "paceline-tiny",
    "max_tokens": 32000,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=00000;"},
        {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
    ],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>"},
                {"type": "text", "text": "Which day?", "cache_control": {"type": "ephemeral"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A clock tells.", "signature": "abc"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": [{"type": "tool_reference", "tool_name": "get_day"}],
                },
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
    "tools": [
        *({**tool, "cache_control": {"type": "ephemeral"}} for tool in agent_tools.MESSAGES),
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    ],
    "thinking": {"type": "adaptive"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "medium"},
    "metadata": {"user_id": "user_1"},
    "stream": True,
    "stop_sequences": ["."],
}
RENDERED = (
    "system: You are Claude Code.\nuser: <system-reminder>\nWhich day?\n"
    'assistant: <think>A clock tells.</think>I look.<tool_call>{"name": "get_time", "arguments": {}}</tool_call>\n'
    "tool: get_day\nuser: Go on.\nassistant:<think>"
)


def test_claude_code_is_answered(url: str, bundled: LLM) -> None:
    headers = {"anthropic-beta": "claude-code-20250219", "x-api-key": "none"}
    response = httpx.post(f"{url}/v1/messages?beta=true", json=CLAUDE_CODE, headers=headers, timeout=60)
    assert response.status_code == 200
    assert response.headers["x-paceline-ignored-fields"] == "tools:web_search_20250305"
    order = [line.removeprefix("event: ") for line in response.text.split("\n") if line.startswith("event: ")]
    assert order[:2] == ["message_start", "content_block_start"]
    assert order[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(order[2:-3]) == {"content_block_delta"}
    counted = httpx.post(f"{url}/v1/messages/count_tokens?beta=true", json={**CLAUDE_CODE, "tools": []})
    assert counted.json() == {"input_tokens": len(bundled.runtime.factory.ids(RENDERED))}


def test_a_prefix_that_was_read_is_reported(client: anthropic.Anthropic) -> None:
    given: Any = {**GIVEN, "max_tokens": 2, "system": "A long and quiet story of a fox. " * 30}
    client.messages.create(**given)
    again = client.messages.create(**given).usage
    assert again.cache_read_input_tokens is not None
    assert again.cache_read_input_tokens >= 64
    assert again.input_tokens < 64 + 64


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, r"messages\[0\].role is 'wizard'"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, r"messages\[0\].content\[0\] is 'image'"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]}, r"content\[0\].name"),
    ({"messages": FOX, "tools": [{"name": "f"}]}, r"tools\[0\] has no input_schema"),
    ({"messages": FOX, "tool_choice": {"type": "any"}}, "tool_choice"),
    ({"messages": FOX, "extra_body": {"temperature": -1}}, "temperature is -1"),
    ({"messages": FOX, "system": [{"type": "image"}]}, r"system\[0\] is 'image'"),
]


@pytest.mark.parametrize(("body", "told"), REFUSED)
def test_errors_have_anthropics_form(client: anthropic.Anthropic, body: dict[str, Any], told: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=told) as caught:
        client.messages.create(**{"model": "paceline-tiny", "max_tokens": 5, **body})
    error: Any = caught.value.body
    assert error["type"] == "error"
    assert error["error"]["type"] == "invalid_request_error"


def test_other_errors_have_it_too(client: anthropic.Anthropic, url: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="allowed: paceline-tiny"):
        client.messages.create(**{**GIVEN, "model": "claude"})
    for path, body in (("/v1/messages", b"{"), ("/v1/messages/none", b"{}")):
        assert httpx.post(f"{url}{path}", content=body).json()["type"] == "error"
