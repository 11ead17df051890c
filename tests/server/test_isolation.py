"""One tenant's text never changes another's drafts or prefix hits: by API key, and by `cache_salt`.

What the second tenant sees is compared with what it sees on a server that nobody has asked before, bit for bit:
usage, every step's drafts, and how many positions were read, which is what time to the first token depends on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .asking import ask
from .running import running

SECRET = "The code of the vault is 7741-0093-5528 and the fox keeps it under the old oak tree by the river. " * 2
PROMPTS = [SECRET, SECRET + SECRET[:60], "The code of the vault is 7741-", SECRET * 3]
DRAFTERS = ["recycle", "suffix", "history", "logitspec"]
KEYS = ("key of a", "key of b")


@contextmanager
def fresh(bundled: LLM, drafters: list[str]) -> Iterator[tuple[str, LLM]]:
    """A server of its own drafters, whose pacer asks each at every step: what they propose depends on no clock."""
    with (
        LLM.from_target(bundled.target, bundled.tokenizer, info=bundled.info, drafters=drafters) as llm,
        running(create_app(llm, Settings(("m",), keys=KEYS))) as url,
    ):
        yield url, llm


def asked(url: str, prompt: str, key: str, salt: str | None) -> Any:
    body = {"prompt": prompt, "max_tokens": 24, "temperature": 0, "ignore_eos": True, "return_token_details": True}
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    answer = ask(url, "/v1/completions", {**body, "cache_salt": salt}, headers=headers)
    assert answer.status == 200, answer.body
    return answer.json


def seen(llm: LLM, url: str, key: str, salt: str | None) -> list[Any]:
    """All that a tenant can learn from its requests, but for the clock."""
    found = []
    for prompt in PROMPTS:
        read: list[int] = []
        with counted(llm, read):
            answer = asked(url, prompt, key, salt)
        [choice] = answer["choices"]
        steps = [{k: v for k, v in step.items() if not k.endswith("_ms")} for step in choice["steps"]]
        found.append((choice["text"], steps, answer["usage"], choice["prompt_details"], sum(read)))
    return found


@contextmanager
def counted(llm: LLM, read: list[int]) -> Iterator[None]:
    """Note how many positions of prompts are read."""
    target, original = llm.target, llm.target.read

    def counting(request: Any, max_rows: int) -> int:
        read.append(original(request, max_rows))
        return read[-1]

    target.read = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        del target.read


SALTS = iter(range(10**6))  # the target is one for all tests, and its prefix cache with it: names nobody has had


@pytest.mark.parametrize(
    ("drafters", "by"), [(["recycle"], "salt"), (["history"], "salt"), (DRAFTERS, "salt"), (DRAFTERS, "key")]
)
def test_who_came_before_cannot_be_seen(bundled: LLM, drafters: list[str], by: str) -> None:
    def tenant(number: int) -> tuple[str, str]:
        return (KEYS[number], mark) if by == "key" else (KEYS[0], f"{mark}-{number}")

    mark = f"mark {next(SALTS)}"
    with fresh(bundled, drafters) as (url, llm):
        alone = seen(llm, url, *tenant(1))
    mark = f"mark {next(SALTS)}"
    with fresh(bundled, drafters) as (url, llm):
        first = seen(llm, url, *tenant(0))
        again = seen(llm, url, *tenant(0))
        other = seen(llm, url, *tenant(1))
    assert other == alone
    assert first == alone
    # A tenant finds its own text again; else this test could not fail.
    assert again[0][-1] < first[0][-1]  # fewer positions are read
    assert [one[1] for one in again] != [one[1] for one in first]  # other drafts


def test_a_salt_is_no_way_into_another_key(bundled: LLM) -> None:
    """Neither the same salt under another key, nor a salt that looks like a key and a salt, is the same tenant."""
    mark = f"mark {next(SALTS)}"
    with fresh(bundled, ["history"]) as (url, _):
        assert asked(url, SECRET, KEYS[0], mark)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        for key, salt in ((KEYS[1], mark), (KEYS[0], f"{mark} "), (KEYS[0], mark.upper())):
            assert asked(url, SECRET, key, salt)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        assert asked(url, SECRET, KEYS[0], mark)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
