"""What the public API is to a type checker. mypy reads it (scripts/check); nothing here is run."""

from __future__ import annotations

from typing_extensions import assert_type

import paceline
from paceline import LLM, AsyncStream, Output, SamplingParams, Stream, Token

Turns = list[dict[str, str]]


def prompts(llm: LLM, ids: list[int], texts: list[str], params: SamplingParams) -> None:
    assert_type(llm.generate("Once"), Output)
    assert_type(llm.generate(ids, params, max_tokens=5), Output)
    assert_type(llm.generate({"prompt_token_ids": ids}), Output)
    assert_type(llm.generate(texts, temperature=0.5, stop="x", drafters="none"), list[Output])
    assert_type(llm.generate([ids, ids]), list[Output])
    assert_type(llm.stream("Once", params), Stream)
    assert_type([token.text for token in llm.stream("Once")], list[str])


def conversations(llm: LLM, turns: Turns, several: list[Turns]) -> None:
    assert_type(llm.chat(turns), Output)
    assert_type(llm.chat(several), list[Output])
    assert_type(llm.chat(turns, stream=True), Stream)


async def coroutines(llm: LLM) -> None:
    assert_type(llm.astream("Once"), AsyncStream)
    async for token in llm.astream("Once"):
        assert_type(token, Token)


def loading() -> None:
    assert_type(LLM("org/model", draft_model="org/small"), LLM)
    assert_type(paceline.load(), LLM)


def wrong(llm: LLM) -> None:
    llm.generate("Once", max_new_tokens=5)  # type: ignore[call-overload]  # mypy says so if it is not needed
    llm.generate("Once", temperature="hot")  # type: ignore[call-overload]
