"""From prompts to ids: the chat template where there is one, and nothing that does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import paceline
from paceline import LLM
from paceline.bench.prompting import AS_CHAT, AS_TEXT, encode_prompts
from paceline.errors import ConfigError
from paceline.text.prompt_formats import Prompt

TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)
TURNS = Prompt("chat", ("One?", "Two?", "Three?"))


@pytest.fixture(scope="module")
def plain(tiny: str) -> Iterator[LLM]:
    with paceline.load(tiny, drafters="none") as llm:
        yield llm


@pytest.fixture(scope="module")
def chatty(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder: Path = tmp_path_factory.mktemp("chatty")
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    with paceline.load(tiny, tokenizer=str(folder), drafters="none") as llm:
        yield llm


def texts(llm: LLM, found: list) -> list[str]:
    assert llm.tokenizer is not None
    return [llm.tokenizer.decode(one.ids) for one in found]


def test_without_a_chat_template_the_first_turn_stands_alone(plain: LLM) -> None:
    found = encode_prompts(plain, [TURNS, Prompt("b", (" Hm",))], 4)
    assert found.form == AS_TEXT
    assert texts(plain, found.prompts) == ["One?", " Hm"]
    assert found.num_too_long == 0


def test_a_conversation_holds_plain_decodings_own_answers(chatty: LLM) -> None:
    found = encode_prompts(chatty, [TURNS], 5)
    assert found.form == AS_CHAT
    assert [one.prompt for one in found.prompts] == [Prompt("chat", (turn,)) for turn in TURNS.turns]
    history = ""
    for one, turn in zip(found.prompts, TURNS.turns, strict=True):
        history += f"u:{turn}\n"
        assert texts(chatty, [one]) == [f"{history}a:"]
        answer = chatty.generate(list(one.ids), max_tokens=5, temperature=0.0).text
        assert answer
        history += f"a:{answer}\n"


def test_what_does_not_fit_is_left_out_and_counted(plain: LLM) -> None:
    room = plain.target.max_length - 8
    prompts = [Prompt("a", ("x" * count,)) for count in (room - 1, room, room + 1, 3)]
    found = encode_prompts(plain, prompts, 8)
    assert [len(one.ids) for one in found.prompts] == [room - 1, room, 3]
    assert found.num_too_long == 1


def test_a_turn_that_does_not_fit_ends_its_conversation(chatty: LLM) -> None:
    long = "x" * chatty.target.max_length
    found = encode_prompts(chatty, [Prompt("a", ("One?", long, "Three?", "Four?")), Prompt("b", ("Yes?",))], 3)
    assert [one.prompt.category for one in found.prompts] == ["a", "b"]
    assert found.num_too_long == 3


def test_a_set_of_which_nothing_fits_is_refused(plain: LLM) -> None:
    for prompts, max_tokens in (([Prompt("a", ("xy",))], plain.target.max_length - 1), ([], 1)):
        with pytest.raises(ConfigError, match="no prompt fits"):
            encode_prompts(plain, prompts, max_tokens)


def test_a_model_without_a_tokenizer_is_refused(plain: LLM) -> None:
    with pytest.raises(ConfigError, match="no tokenizer"):
        encode_prompts(LLM.from_target(plain.target, None), [TURNS], 4)
