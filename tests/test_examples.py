"""The examples do what they say."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paceline

EXAMPLES = Path(__file__).parent.parent / "examples"
COMMAND = "book a table for six at an italian place in Chicago tonight"


@pytest.fixture(scope="module")
def llm() -> Iterator[paceline.LLM]:
    with paceline.LLM() as llm:
        yield llm


def test_the_best_answer_is_there_in_time(llm: paceline.LLM) -> None:
    example = runpy.run_path(str(EXAMPLES / "in_time.py"))
    answer: Callable[..., Any] = example["answer"]
    whole = answer(llm, COMMAND, 30.0)
    none = answer(llm, COMMAND, 1e-6)
    some = [answer(llm, COMMAND, seconds) for seconds in (0.02, 0.06, 0.2)]
    assert (whole.kind, whole.ended[:28]) == ("BookRestaurant", "the model became unsure: ent")
    assert whole.probability > 0.9
    assert 0.0 < whole.details_probability < 1.0
    assert (none.kind, none.probability) == (None, 0.0)
    for found in some:  # what is known early is what is known in the end, or a beginning of it
        assert found.kind in (None, whole.kind)
        assert whole.details.startswith(found.details)
        assert found.details_probability >= whole.details_probability


def test_it_asks_again_rather_than_guess(llm: paceline.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    example = runpy.run_path(str(EXAMPLES / "in_time.py"))
    answer: Any = example["answer"]
    monkeypatch.setitem(answer.__globals__, "LEAST", 1.0)
    found = answer(llm, COMMAND, 30.0)
    assert found.kind is None
    assert 0.5 < found.probability < 1.0
    assert found.ended
