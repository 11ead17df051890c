"""OpenAI's own client, synchronous and asynchronous, streamed and whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from paceline import LLM


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_completion_is_what_generate_gives(client: openai.OpenAI, bundled: LLM) -> None:
    given: dict[str, Any] = {"temperature": 0.9, "top_p": 0.8, "seed": 5, "max_tokens": 37}
    plain = bundled.generate("The old dog", drafters="none", **given)
    answer = client.completions.create(model="paceline-tiny", prompt="The old dog", **given)
    assert answer.choices[0].text == plain.text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(plain.token_ids)
    parts = list(client.completions.create(model="org/other", prompt="The old dog", stream=True, **given))
    assert "".join(part.choices[0].text for part in parts) == plain.text
    assert [part.choices[0].finish_reason for part in parts][-1] == plain.finish_reason


def test_a_chat_is_streamed_as_it_is_answered(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell me of a fox."}]
    given: dict[str, Any] = {"model": "paceline-tiny", "messages": messages, "temperature": 0, "max_tokens": 23}
    whole = client.chat.completions.create(**given)
    parts = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **given))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == (
        whole.choices[0].message.content
    )
    assert parts[0].choices[0].delta.role == "assistant"
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"
    assert parts[-1].choices == []
    told, wanted = (usage.model_dump(exclude={"prompt_tokens_details"}) for usage in (parts[-1].usage, whole.usage))
    assert told == wanted  # of the prompt, more is in the prefix cache the second time


def test_several_prompts_and_samples_are_in_order(client: openai.OpenAI, bundled: LLM) -> None:
    given: dict[str, Any] = {"temperature": 1.1, "seed": 2, "max_tokens": 9, "n": 3}
    plain = bundled.generate(["Once", "The dog"], drafters="none", **given)
    answer = client.completions.create(model="paceline-tiny", prompt=["Once", "The dog"], **given)
    assert [choice.text for choice in answer.choices] == [output.text for output in plain]
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_the_asynchronous_client_reads_many_streams_at_once(url: str, bundled: LLM) -> None:
    prompts = ["Once", "A cat", "The sun is", "Tom and Lily"]

    async def read(client: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await client.completions.create(
            model="paceline-tiny", prompt=prompt, temperature=0, max_tokens=31, stream=True
        )
        return "".join([part.choices[0].text async for part in stream])

    async def read_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await asyncio.gather(*(read(client, prompt) for prompt in prompts))

    plain = [bundled.generate(prompt, drafters="none", max_tokens=31).text for prompt in prompts]
    assert asyncio.run(read_all()) == plain


def test_what_is_refused_names_its_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature is -3") as caught:
        client.completions.create(model="paceline-tiny", prompt="a", temperature=-3)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.NotFoundError, match="allowed: paceline-tiny, org/other"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 2048 tokens") as caught:
        client.completions.create(model="paceline-tiny", prompt="word " * 3000)
    assert caught.value.code == "context_length_exceeded"
