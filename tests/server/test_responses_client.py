"""The Responses API by OpenAI's client, and as Codex sends and reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from paceline import LLM

from . import agent_tools

NAMED = {"type": "function", "name": "get_weather"}


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_text_is_what_generate_gives(client: openai.OpenAI, bundled: LLM) -> None:
    given: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "max_output_tokens": 25}
    prompt = "system: Be kind.\nuser: Tell me of a fox.\nassistant:"
    plain = bundled.generate(prompt, drafters="none", temperature=0.7, top_p=0.9, seed=4, max_tokens=25)
    asked: dict[str, Any] = {"model": "paceline-tiny", "instructions": "Be kind.", "extra_body": {"seed": 4}}
    answer = client.responses.create(input="Tell me of a fox.", **asked, **given)
    assert answer.output_text == plain.text
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")  # type: ignore[union-attr]
    assert answer.usage is not None
    assert answer.usage.output_tokens == 25
    with client.responses.stream(input="Tell me of a fox.", **asked, **given) as stream:
        events = list(stream)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole = [event for event in events if event.type == "response.incomplete"]
    assert whole[0].response.output_text == plain.text


def test_a_forced_call_is_streamed_and_answered(client: openai.OpenAI) -> None:
    given: dict[str, Any] = {"model": "paceline-tiny", "tools": agent_tools.RESPONSES, "input": "Rome?"}
    answer = client.responses.create(tool_choice=NAMED, **given)  # type: ignore[call-overload]
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert agent_tools.is_weather(json.loads(call.arguments))
    with client.responses.stream(tool_choice="required", **given) as stream:
        events = list(stream)
        done = stream.get_final_response()
    fragments = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    (streamed,) = done.output
    assert streamed.type == "function_call"
    assert "".join(fragments) == streamed.arguments
    history = [
        {"role": "user", "content": "Rome?"},
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    last = client.responses.create(model="paceline-tiny", input=history, max_output_tokens=5)  # type: ignore[arg-type]
    assert last.output_text


def test_the_asynchronous_client_reads_a_schema(url: str) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "answer", "schema": agent_tools.PARAMETERS, "strict": True}}

    async def read() -> Response:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await client.responses.create(model="paceline-tiny", input="Where?", text=form)

    answer = asyncio.run(read())
    assert agent_tools.is_weather(json.loads(answer.output_text))
    assert answer.status == "completed"


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        told = json.loads(data.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        found.append(told)
    return found


# As Codex sends it, texts shortened.
CODEX = {
    "model": "paceline-tiny",
    "instructions": "You are Codex, based on GPT-5.",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Is it late?"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a clock"}], "encrypted_content": None},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "name": "get_time", "arguments": "{}", "call_id": "abcdefghi"},
        {"type": "function_call_output", "call_id": "abcdefghi", "output": "noon"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    ],
    "tools": [*agent_tools.RESPONSES, {"type": "web_search"}, {"type": "custom", "name": "apply_patch", "format": {}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0199-a",
    "text": {"verbosity": "low"},
    "client_metadata": {"x-codex-installation-id": "1"},
    "temperature": 0,
    "max_output_tokens": 12,
}


def test_codex_gets_its_events_in_order(url: str) -> None:
    response = httpx.post(f"{url}/v1/responses", json=CODEX, timeout=60)
    ignored = response.headers["x-paceline-ignored-fields"].split(", ")
    wanted = ["client_metadata", "text.verbosity", "input:web_search_call", "tools:web_search", "tools:custom"]
    assert sorted(ignored) == sorted(wanted)
    events = events_of(response)
    order = [event["type"].removeprefix("response.") for event in events]
    assert order[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(order[4:-4]) == {"output_text.delta"}
    assert order[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = [event for event in events if "item_id" in event]
    assert {(event["output_index"], event["item_id"]) for event in items} == {(0, items[0]["item_id"])}
    assert all(event["logprobs"] == [] for event in events if "output_text" in event["type"])
    whole = events[-1]["response"]
    assert whole["output"] == [events[-2]["item"]]
    assert whole["output"][0]["content"][0]["text"] == "".join(e["delta"] for e in items if "delta" in e)
    assert [tool["name"] for tool in whole["tools"]] == ["get_weather", "get_time"]


REFUSED = [
    ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "a", "background": True}, "background"),
    ({"input": "a", "n": 2}, "n"),
    ({"input": []}, "input"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ({"input": [{"role": "wizard", "content": "a"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": {"text": "a"}}]}, "input[0].content"),
    ({"input": [{"type": "function_call", "arguments": "{}", "call_id": "a"}]}, "input[0].name"),
    ({"input": "a", "tools": [{"type": "function", "name": "f", "parameters": 7}]}, "tools[0].parameters"),
    ({"input": "a", "tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
    ({"input": "a", "include": ["message.output_text.logprobs"]}, "include"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
def test_what_is_refused_names_its_place(url: str, body: dict[str, Any], param: str) -> None:
    response = httpx.post(f"{url}/v1/responses", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
