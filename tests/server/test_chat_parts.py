"""What a model writes becomes text, reasoning and calls, however it is cut into tokens and steps."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from paceline import LLM, SamplingParams
from paceline.engine.request import Token
from paceline.server.chat.marked import Marked
from paceline.server.chat.parts import Block, put_together
from paceline.server.chat.readers import ForcedCallReader, PlainReader, Reader
from paceline.server.chat.template_reader import TemplateReader
from paceline.server.chat.tools import ToolUse
from paceline.text.stream import TextStream

from .conftest import RESPONSE_TEMPLATE

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def tokens_of(bundled: LLM, text: str) -> list[Token]:
    """The text as the engine emits it."""
    tokenizer = bundled.runtime.factory.tokenizer
    ids = tokenizer.inner(text, add_special_tokens=False)["input_ids"]
    stream = TextStream(tokenizer.decode, [], ())
    texts = [stream.push(token_id, True)[0] for token_id in ids]
    texts[-1] += stream.finish()
    return [Token(i, text, "target", 0.0, 0.0) for i, text in zip(ids, texts, strict=True)]


def reader_of(bundled: LLM, use: ToolUse, prompt: str = "user: a\nassistant:", stop: tuple[str, ...] = ()) -> Reader:
    tokenizer = bundled.runtime.factory.tokenizer
    marked = Marked(tokenizer, RESPONSE_TEMPLATE)
    params = SamplingParams(stop=stop)
    return TemplateReader(RESPONSE_TEMPLATE, marked, tokenizer.encode(prompt), params, use)


def blocks_of(reader: Reader, tokens: list[Token], draw: random.Random, rest: str = "") -> list[Block]:
    """The blocks of an answer that comes in steps of drawn sizes."""
    parts = []
    while tokens:
        count = draw.randint(1, 9)
        parts += reader.read(tokens[:count])
        tokens = tokens[count:]
    return put_together([*parts, *reader.finish(rest)])


def drawn_answer(draw: random.Random) -> tuple[str, list[tuple[str, str]]]:
    """An answer as a model writes it, and what it says."""
    words = ["a < b", "<think", "</tool_call>", "naïve 🦊", "{}", "\n\n", "<tool_cal", "x" * 9]
    text, said = "", []
    for _ in range(draw.randint(1, 6)):
        kind = draw.choice(["text", "reasoning", "call"])
        spoken = " ".join(draw.choices(words, k=draw.randint(1, 3))).strip() + "."
        if kind == "text" and not (said and said[-1][0] == "text"):
            text, said = text + spoken, [*said, ("text", spoken)]
        elif kind == "reasoning" and not (said and said[-1][0] == "reasoning"):
            text, said = text + f"<think>{spoken}</think>", [*said, ("reasoning", spoken)]
        elif kind == "call":
            call = {"name": "f", "arguments": {"said": spoken.replace("</tool_call>", "")}}
            text += f"<tool_call>{json.dumps(call, ensure_ascii=False)}</tool_call>"
            said.append(("call", json.dumps(call["arguments"], ensure_ascii=False)))
    return text, said


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_is_read_in_any_steps(bundled: LLM, seed: int) -> None:
    draw = random.Random(seed)
    text, said = drawn_answer(draw)
    if not text:
        return
    blocks = blocks_of(reader_of(bundled, ToolUse(TOOLS)), tokens_of(bundled, text), draw)
    assert [(block.kind, block.text) for block in blocks] == said
    ids = [block.id for block in blocks if block.kind == "call"]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 9 and one.isalnum() for one in ids)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_of_an_answer_that_is_cut(bundled: LLM, seed: int) -> None:
    draw = random.Random(seed)
    tokens = tokens_of(bundled, 'Yes.<tool_call>{"name": "f", "arguments": {"city": "Rome", "days": 3}}</tool_call>')
    cut = draw.randint(1, len(tokens))
    written = "".join(token.text for token in tokens[:cut])
    blocks = blocks_of(reader_of(bundled, ToolUse(TOOLS)), tokens[:cut], draw)
    if json_of_call := written.partition("<tool_call>")[2].partition("</tool_call>")[0]:
        is_whole = json_of_call.endswith("}}")
        assert [block.kind for block in blocks] == (["text", "call"] if is_whole else ["text"])
        written = "Yes." if is_whole else written
    assert blocks[0].text == written


def test_a_call_that_is_no_json_is_text(bundled: LLM) -> None:
    text = "Yes.<tool_call>{name: f}</tool_call> And <think>so</think> on."
    blocks = blocks_of(reader_of(bundled, ToolUse(TOOLS)), tokens_of(bundled, text), random.Random(0))
    assert [(block.kind, block.text) for block in blocks] == [("text", text)]


@pytest.mark.parametrize("seed", range(3))
def test_what_follows_a_call_is_told_once(bundled: LLM, seed: int) -> None:
    good, bad = '<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>', "\n<tool_call>{name: f}</tool_call> So."
    blocks = blocks_of(reader_of(bundled, ToolUse(TOOLS)), tokens_of(bundled, good + bad), random.Random(seed))
    assert [(block.kind, block.text) for block in blocks] == [("call", '{"n": 1}'), ("text", bad)]


def test_without_tools_a_call_is_text(bundled: LLM) -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    blocks = blocks_of(reader_of(bundled, ToolUse()), tokens_of(bundled, text), random.Random(0))
    assert [(block.kind, block.text) for block in blocks] == [("text", text)]


def test_one_call_is_one_call(bundled: LLM) -> None:
    text = '<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>' * 3
    use = ToolUse(TOOLS, is_single=True)
    assert [block.text for block in blocks_of(reader_of(bundled, use), tokens_of(bundled, text), random.Random(0))] == [
        '{"n": 1}'
    ]


def test_reasoning_may_begin_in_the_prompt(bundled: LLM) -> None:
    reader = reader_of(bundled, ToolUse(), "assistant: no\nuser: a\nassistant:<think>")
    tokens = tokens_of(bundled, "so it is</think>Yes")
    blocks = blocks_of(reader, tokens, random.Random(1))
    assert [(block.kind, block.text) for block in blocks] == [("reasoning", "so it is"), ("text", "Yes")]
    inside = "".join(token.text for token in tokens).index("Yes")
    assert 0 < reader.num_reasoning_tokens <= len(tokens_of(bundled, "so it is</think>Yes"[:inside]))


def test_a_stop_string_ends_what_is_read(bundled: LLM) -> None:
    reader = reader_of(bundled, ToolUse(), stop=("END",))
    blocks = blocks_of(reader, tokens_of(bundled, "<think>a</think>it is the EN"), random.Random(2))
    assert blocks[-1].text == "it is the EN"
    reader = reader_of(bundled, ToolUse(), stop=("END",))
    assert blocks_of(reader, tokens_of(bundled, "<think>a</think>it is the END"), random.Random(2))[-1].text == (
        "it is the "
    )


def test_the_rest_of_an_answer_that_was_cut_is_given(bundled: LLM) -> None:
    blocks = blocks_of(PlainReader(), tokens_of(bundled, "it is the"), random.Random(3), " EN")
    assert [block.text for block in blocks] == ["it is the EN"]


@pytest.mark.parametrize("seed", range(10))
def test_a_forced_call_is_read_in_any_steps(bundled: LLM, seed: int) -> None:
    draw = random.Random(seed)
    arguments: Any = json.dumps(draw.choice([{}, {"a": {"b": {}}}, {"text": '"}, {"'}, {"ü": [1, {"x": "🦊"}]}]))
    name = draw.choice(["f", 'say "arguments": ', "größe"])
    written = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {arguments}}}'
    blocks = blocks_of(ForcedCallReader(), tokens_of(bundled, written), draw)
    assert [(block.kind, block.name, block.text) for block in blocks] == [("call", name, arguments)]
    cut = draw.randint(1, len(written) - 1)
    blocks = blocks_of(ForcedCallReader(), tokens_of(bundled, written[:cut]), draw)
    said = f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": {blocks[0].text}'
    assert (blocks[0].text if blocks[0].kind == "text" else said) == written[:cut]
