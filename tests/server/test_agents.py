"""A model that thinks, speaks and calls two tools by itself, as each API tells of it. Its tokens are a script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import anthropic
import numpy as np
import openai
import pytest

from paceline import LLM
from paceline.server import create_app
from paceline.testing import ScriptedTarget

from . import agent_tools
from .asking import ask
from .conftest import settings_for_tests
from .running import running

THOUGHT, SAID = "Two towns, so two calls. a < b", "I look."
ARGUMENTS = [{"city": "Rome", "days": 3}, {"city": "Paris", "days": 1}]
CALLS = [json.dumps({"name": "get_weather", "arguments": one}) for one in ARGUMENTS]
ANSWER = f"{THOUGHT}</think>{SAID}\n<tool_call>{CALLS[0]}</tool_call>\n<tool_call>{CALLS[1]}</tool_call>"
THINKS: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": True}}
ROME: Any = [{"role": "user", "content": "Rome or Paris?"}]
BODY: dict[str, Any] = {"messages": ROME, "tools": agent_tools.CHAT, **THINKS}


@pytest.fixture(scope="module")
def url(bundled: LLM) -> Iterator[str]:
    tokenizer = bundled.runtime.factory.tokenizer
    start = tokenizer.inner("<think>", add_special_tokens=False)["input_ids"]
    answer = tokenizer.inner(ANSWER, add_special_tokens=False)["input_ids"]

    def logits(history: Sequence[int]) -> Any:
        """What the model thinks behind the last place where it was to begin."""
        begin = max(i for i in range(len(history)) if list(history[i : i + len(start)]) == start) + len(start)
        written = len(history) - begin
        row = np.zeros(bundled.target.vocab_size)
        row[answer[written] if written < len(answer) else tokenizer.inner.eos_token_id] = 50.0
        return row

    target = ScriptedTarget(logits, bundled.target.vocab_size, max_length=4096)
    with (
        LLM.from_target(target, tokenizer, drafters="none") as llm,
        running(create_app(llm, settings_for_tests())) as u,
    ):
        yield u


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_calls_twice(url: str) -> None:
    answer = ask(url, "/v1/chat/completions", BODY)
    message = answer.json["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == (THOUGHT, SAID)
    functions = [call["function"] for call in message["tool_calls"]]
    assert [(one["name"], json.loads(one["arguments"])) for one in functions] == [
        ("get_weather", arguments) for arguments in ARGUMENTS
    ]
    assert answer.json["choices"][0]["finish_reason"] == "tool_calls"
    assert (
        0
        < answer.json["usage"]["completion_tokens_details"]["reasoning_tokens"]
        < (answer.json["usage"]["completion_tokens"] / 2)
    )


def test_a_chat_streams_its_calls(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="paceline-tiny", messages=ROME, tools=agent_tools.CHAT, stream=True, extra_body=THINKS
    )
    choices = [chunk.choices[0] for chunk in stream]
    calls = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert [call.index for call in calls] == [0, 0, 1, 1]
    assert [bool(call.id) for call in calls] == [True, False, True, False]
    assert [json.loads(call.function.arguments) for call in calls[1::2] if call.function] == ARGUMENTS  # type: ignore[arg-type]
    deltas = [choice.delta.model_dump(exclude_unset=True) for choice in choices]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == THOUGHT
    assert "".join(delta.get("content") or "" for delta in deltas) == SAID
    assert all(delta.get("tool_calls", ()) is not None for delta in deltas)
    assert [choice.finish_reason for choice in choices][-1] == "tool_calls"


def test_one_call_at_a_time(url: str) -> None:
    answer = ask(url, "/v1/chat/completions", {**BODY, "parallel_tool_calls": False})
    (call,) = answer.json["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS[0]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_that_the_limit_cuts_is_none(url: str, client: openai.OpenAI, is_streamed: bool) -> None:
    written = ANSWER[: ANSWER.index('"days"')]
    limit = ask(url, "/tokenize", {"prompt": written, "add_special_tokens": False}).json["count"]
    given: Any = {"model": "paceline-tiny", "messages": ROME, "tools": agent_tools.CHAT, "max_tokens": limit}
    answer = client.chat.completions.create(**given, stream=is_streamed, extra_body=THINKS)
    if is_streamed:
        choices = [chunk.choices[0] for chunk in answer]
        content = "".join(choice.delta.content or "" for choice in choices)
        reason, calls = choices[-1].finish_reason, [c for choice in choices for c in choice.delta.tool_calls or []]
    else:
        content, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        calls = answer.choices[0].message.tool_calls or []
    assert (reason, calls) == ("length", [])
    assert content.startswith(f"{SAID}\n<tool_call>")
    assert content in ANSWER


def test_a_response_has_an_item_for_each(client: openai.OpenAI) -> None:
    given: Any = {"model": "paceline-tiny", "input": ROME, "tools": agent_tools.RESPONSES, "extra_body": THINKS}
    answer = client.responses.create(**given)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    assert answer.output_text == SAID
    assert answer.output[0].content[0].text == THOUGHT  # type: ignore[union-attr,index]
    assert answer.status == "completed"
    with client.responses.stream(**given) as stream:
        events = list(stream)
        last = stream.get_final_response()
    told = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.id for item in told] == [item.id for item in last.output]
    assert [item.type for item in told] == [item.type for item in answer.output]
    assert [event.output_index for event in events if event.type == "response.output_item.added"] == [0, 1, 2, 3]
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == THOUGHT


def test_a_message_has_a_block_for_each(url: str) -> None:
    given: Any = {"model": "paceline-tiny", "messages": ROME, "tools": agent_tools.MESSAGES, "max_tokens": 300}
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        thinking: Any = {"type": "adaptive"}
        answer = client.messages.create(**given, thinking=thinking)
        with client.messages.stream(**given, thinking=thinking) as stream:
            streamed = stream.get_final_message()
    for message in (answer, streamed):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert message.content[0].thinking == THOUGHT  # type: ignore[union-attr]
        assert message.content[1].text == SAID  # type: ignore[union-attr]
        assert [block.input for block in message.content[2:]] == ARGUMENTS  # type: ignore[union-attr]
        assert message.stop_reason == "tool_use"
