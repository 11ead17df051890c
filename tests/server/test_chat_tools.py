"""Tools, reasoning and log probabilities of chats, by OpenAI's client and by LiteLLM."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from paceline import LLM
from paceline.server.chat.format import ChatFormat
from paceline.server.chat.tools import tool_use
from paceline.server.schemas.chat import ChatBody

from . import agent_tools
from .asking import ask

NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
ROME: Any = [{"role": "user", "content": "Rome?"}]
GIVEN: dict[str, Any] = {"model": "paceline-tiny", "messages": ROME}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def deltas_of(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    """The tool deltas of a stream, as they were sent."""
    deltas = [chunk.choices[0].delta.model_dump(exclude_unset=True) for chunk in chunks if chunk.choices]
    assert all(delta.get("tool_calls", []) is not None for delta in deltas)
    return [call for delta in deltas for call in delta.get("tool_calls", [])]


def test_a_named_function_is_called(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**GIVEN, tools=agent_tools.CHAT, tool_choice=NAMED)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert agent_tools.is_weather(json.loads(call.function.arguments))
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    history: Any = [*ROME, choice.message.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(model="paceline-tiny", messages=history, max_tokens=4)
    assert last.choices[0].message.tool_calls is None


def test_a_required_call_is_streamed_in_fragments(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {**GIVEN, "tools": agent_tools.CHAT, "tool_choice": "required", "seed": 1}
    answer = client.chat.completions.create(**given)
    chunks = list(client.chat.completions.create(**given, stream=True))
    first, *rest = deltas_of(chunks)
    assert set(first) == {"index", "id", "type", "function"}
    assert first["function"]["arguments"] == ""
    assert all(set(delta) == {"index", "function"} and delta["index"] == 0 for delta in rest)
    (whole,) = answer.choices[0].message.tool_calls or []
    assert whole.type == "function"
    assert first["function"]["name"] == whole.function.name
    assert "".join(delta["function"]["arguments"] for delta in rest) == whole.function.arguments
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "tool_calls"
    assert chunks[0].choices[0].delta.role == "assistant"


def test_a_forced_call_costs_the_model_its_choices_alone(forced: LLM) -> None:
    body = ChatBody.model_validate({"messages": ROME, "tools": agent_tools.CHAT, "tool_choice": NAMED})
    use = tool_use(body, ChatFormat(takes_tools=True))
    output = forced.generate("user: Rome?\nassistant:", response_format=use.response_format, max_tokens=80, seed=1)
    call = json.loads(output.text)
    assert output.text == json.dumps(call)  # one spelling: what is forced is as `json` writes it
    assert agent_tools.is_weather(call["arguments"])
    assert output.stats.drafters["grammar"].num_accepted_draft_tokens >= 0.5 * output.stats.num_emitted_tokens
    assert output.stats.num_steps <= 0.3 * output.stats.num_emitted_tokens


def test_the_asynchronous_client_reads_calls_of_several_samples(url: str) -> None:
    async def read() -> list[ChatCompletionChunk]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(
                **GIVEN, tools=agent_tools.CHAT, tool_choice=NAMED, n=3, stream=True
            )
            return [chunk async for chunk in stream]

    chunks = asyncio.run(read())
    for index in range(3):
        own = [chunk for chunk in chunks if chunk.choices[0].index == index]
        rest = deltas_of(own)[1:]
        assert agent_tools.is_weather(json.loads("".join(delta["function"]["arguments"] for delta in rest)))
        assert own[-1].choices[0].finish_reason == "tool_calls"


def test_what_is_not_called_is_text(client: openai.OpenAI, bundled: LLM) -> None:
    plain = bundled.generate("user: Rome?\nassistant:", drafters="none", max_tokens=20).text
    for tools in ({"tools": agent_tools.CHAT, "tool_choice": "none"}, {}):
        answer = client.chat.completions.create(**GIVEN, **tools, max_tokens=20, temperature=0)
        assert answer.choices[0].message.content == plain
        assert answer.choices[0].message.tool_calls is None


def test_reasoning_is_told_apart_under_both_names(client: openai.OpenAI, bundled: LLM) -> None:
    plain = bundled.generate("user: Rome?\nassistant:<think>", drafters="none", max_tokens=12).text
    thinks: Any = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    given: dict[str, Any] = {**GIVEN, "temperature": 0, "max_tokens": 12, **thinks}
    answer = client.chat.completions.create(**given)
    told = answer.choices[0].message.model_dump()
    assert (told["reasoning"], told["reasoning_content"], told["content"]) == (plain, plain, "")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 12
    chunks = list(client.chat.completions.create(**given, stream=True))
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == plain
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == plain


@pytest.mark.parametrize("more", [{}, {"logprobs": True}], ids=["text alone", "log probabilities"])
def test_reasoning_is_hidden_where_it_is_not_wanted(client: openai.OpenAI, more: dict[str, Any]) -> None:
    hides: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}, "include_reasoning": False}
    given: dict[str, Any] = {**GIVEN, "temperature": 0, "max_tokens": 12, "extra_body": hides, **more}
    answer = client.chat.completions.create(**given)
    message = answer.choices[0].message.model_dump()
    assert message["content"] == ""
    assert not {"reasoning", "reasoning_content"} & message.keys()
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 12
    chunks = list(client.chat.completions.create(**given, stream=True))
    assert not [
        chunk for chunk in chunks if {"reasoning", "reasoning_content"} & set(chunk.choices[0].delta.model_dump())
    ]
    assert chunks[-1].choices[0].finish_reason == "length"
    told = sum(len(chunk.choices[0].logprobs.content or []) for chunk in chunks if chunk.choices[0].logprobs)
    assert told == (12 if more else 0)
    if not more:
        assert len(chunks) == 2  # the role, and the end


def test_each_token_has_its_log_probability_whatever_it_becomes(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": agent_tools.CHAT, "tool_choice": NAMED, "max_tokens": None}):
        given: dict[str, Any] = {**GIVEN, "temperature": 0, "max_tokens": 15, "logprobs": True, **more}
        answer = client.chat.completions.create(**given)
        assert answer.usage is not None
        assert answer.choices[0].logprobs is not None
        whole = [entry.token for entry in answer.choices[0].logprobs.content or []]
        assert len(whole) == answer.usage.completion_tokens
        chunks = list(client.chat.completions.create(**given, stream=True))
        told = [chunk.choices[0].logprobs for chunk in chunks]
        assert [entry.token for one in told if one for entry in one.content or []] == whole


def test_a_call_that_does_not_fit_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens is 3; allowed: at least"):
        client.chat.completions.create(**GIVEN, tools=agent_tools.CHAT, tool_choice=NAMED, max_tokens=3)


def test_a_tool_that_is_no_function_is_refused(url: str) -> None:
    answer = ask(url, "/v1/chat/completions", {**GIVEN, "tools": [{"type": "custom", "custom": {"name": "f"}}]})
    assert answer.status == 400
    assert str(answer.error["param"]).startswith("tools[0]")


def test_litellm_reads_texts_and_calls(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask the network for prices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, at import
        import litellm

        given: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": "none", "messages": ROME, "num_retries": 0}
        text = litellm.completion(model="openai/paceline-tiny", max_tokens=5, **given)
        assert text.choices[0].message.content
        tools = {"tools": agent_tools.CHAT, "tool_choice": NAMED}
        parts = list(litellm.completion(model="openai/paceline-tiny", stream=True, **tools, **given))
        whole = litellm.stream_chunk_builder(parts)
    assert whole.choices[0].finish_reason == "tool_calls"
    assert agent_tools.is_weather(json.loads(whole.choices[0].message.tool_calls[0].function.arguments))
