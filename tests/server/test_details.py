"""`return_token_details`: every token belongs to its step, and whole and streamed responses tell the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from paceline import LLM
from paceline.engine.request import Token
from paceline.engine.stats import DrafterStats, Stats
from paceline.engine.trace import StepRecord
from paceline.engine.tree import EMPTY
from paceline.pacing.wording import STOPS, sentence
from paceline.server import Settings, create_app
from paceline.server.details import _Sample

from .conftest import TEMPLATE
from .running import running

GIVEN: dict[str, Any] = {"model": "m", "temperature": 0.7, "seed": 3, "max_tokens": 40}
ASKED = {"return_token_details": True}


@pytest.fixture(scope="module")
def client(forced: LLM) -> Iterator[openai.OpenAI]:
    """A server whose every step is drafted."""
    with (
        running(create_app(forced, Settings(("m",), chat_template=TEMPLATE))) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def streamed(client: openai.OpenAI, **given: Any) -> list[Any]:
    parts = client.completions.create(stream=True, extra_body=ASKED, **GIVEN, **given)
    return [part.choices[0] for part in parts if part.choices]


def joined(choices: list[Any], name: str) -> list[Any]:
    return [entry for choice in choices for entry in getattr(choice, name)]


def lasting(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What does not depend on who drafted."""
    return [{name: value for name, value in token.items() if name not in ("source", "step")} for token in tokens]


def test_every_token_belongs_to_the_step_that_emitted_it(client: openai.OpenAI, forced: LLM) -> None:
    offline = forced.generate("The old dog", **{k: v for k, v in GIVEN.items() if k != "model"})
    choices = streamed(client, prompt="The old dog", logprobs=3)
    tokens, steps = joined(choices, "token_details"), joined(choices, "steps")
    assert [token["id"] for token in tokens] == list(offline.token_ids)
    assert "".join(token["text"] for token in tokens) == offline.text
    counts = [sum(token["step"] == i for token in tokens) for i in range(len(steps))]
    assert counts == [step["num_emitted"] for step in steps]
    assert max(counts) > 1
    for token in tokens:
        step = steps[token["step"]]
        place = [one for one in tokens if one["step"] == token["step"]].index(token)
        if token["source"] == "target":
            assert place == len(step["path"])
        else:
            node = step["path"][place]
            assert (step["tokens"][node], step["sources"][node]) == (token["id"], token["source"])
        assert len(token["top"]) == 3
        assert token["margin"] > 0


def test_the_prompt_is_told_first_and_the_pacing_last(client: openai.OpenAI) -> None:
    choices = streamed(client, prompt="Once upon a time")
    told = [hasattr(choice, "prompt_details") for choice in choices]
    assert told == [True] + [False] * (len(choices) - 1)
    assert choices[0].prompt_details["cached_text"] + choices[0].prompt_details["text"] == "Once upon a time"
    assert [hasattr(choice, "pacing") for choice in choices] == [False] * (len(choices) - 1) + [True]
    assert "drafts were right" in choices[-1].pacing["sentence"]


def test_whole_responses_and_chats_tell_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(extra_body=ASKED, prompt=["A cat", "A dog"], n=2, **GIVEN).choices
    streams = [streamed(client, prompt=prompt) for prompt in ("A cat", "A dog")]
    for choice, parts in zip(whole[::2], streams, strict=True):
        assert lasting(choice.token_details) == lasting(joined(parts, "token_details"))
        assert choice.prompt_details["num_tokens"] == parts[0].prompt_details["num_tokens"]
    messages: Any = [{"role": "user", "content": "Tell me of a fox."}]
    chat = client.chat.completions.create(messages=messages, extra_body=ASKED, **GIVEN).choices[0]
    assert "".join(token["text"] for token in chat.token_details) == chat.message.content
    assert chat.prompt_details["text"] == "user: Tell me of a fox.\nassistant:"


def test_who_does_not_ask_is_told_nothing(client: openai.OpenAI) -> None:
    choice = client.completions.create(prompt="A cat", **GIVEN).choices[0]
    assert not (choice.model_extra or {}).keys() & {"token_details", "steps", "prompt_details", "pacing"}


class _Request:
    """As much of a request as is told, with a trace that is a step behind, as while the engine is in a step."""

    def __init__(self, *counts: int) -> None:
        self.tokens, self.num_prompt_tokens, self.stats = [1], 1, Stats()
        self.trace = [StepRecord(EMPTY, (), count, 0.0, 0.0, 0.0) for count in counts]


def test_tokens_whose_step_has_no_record_yet_belong_to_the_next() -> None:
    class Texts:
        def of(self, token: int) -> str:
            return str(token)

        def of_prompt(self, ids: list[int]) -> str:
            return str(ids)

    request: Any = _Request(2, 0, 3)
    sample = _Sample(request, Texts())  # type: ignore[arg-type]
    tokens = [Token(i, "", "target", 0.0, 0.0) for i in range(7)]
    first = sample.of(tokens, False)
    assert [token["step"] for token in first["token_details"]] == [0, 0, 2, 2, 2, 3, 3]
    request.trace += [StepRecord(EMPTY, (), 3, 0.0, 0.0, 0.0), StepRecord(EMPTY, (), 1, 0.0, 0.0, 0.0)]
    later = sample.of(tokens[:2], False)
    assert [token["step"] for token in later["token_details"]] == [3, 4]
    assert [step["num_emitted"] for step in later["steps"]] == [3, 1]


def test_the_sentence_says_why() -> None:
    assert "Nobody was allowed" in sentence(Stats(num_steps=3), may_draft=False)
    idle = Stats(num_steps=9, pacing={"stops": {"idle": 6, "rows would not pay": 2, "all drafts taken": 1}})
    assert sentence(idle, True) == f"The pacer did not draft: {STOPS['idle']}."
    saving = {"draft": DrafterStats(seconds=0.01, earned_seconds=0.05)}
    much = Stats(num_steps=9, num_spec_steps=8, num_accepted_draft_tokens=5, pacing=idle.pacing, drafters=saving)
    assert sentence(much, True) == "The pacer drafted in 8 of 9 steps, which saved 40.0 ms."
    little = Stats(num_steps=9, num_spec_steps=2, pacing=idle.pacing, drafters=saving)
    assert sentence(little, True) == (
        f"The pacer drafted in 2 of 9 steps, and no draft was right; mostly it did not: {STOPS['idle']}."
    )
