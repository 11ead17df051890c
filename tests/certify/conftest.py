"""The bundled model and prompts for it: one of each for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import paceline
from paceline.llm import LLM
from paceline.text.prompt_sets import read_prompt_set


@pytest.fixture(scope="package")
def llm() -> Iterator[LLM]:
    with paceline.load(dtype="float32", drafters="none") as llm:
        yield llm


@pytest.fixture(scope="package")
def prompts(llm: LLM) -> list[tuple[int, ...]]:
    return [tuple(llm.encode(prompt.text)) for prompt in read_prompt_set("bundled").prompts[:7]]
