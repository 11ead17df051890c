"""Grammars that are none or too much, and a store that cannot be written: said, survived."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from paceline import LLM
from paceline.server import Settings, create_app

from .asking import ask
from .leaks import held, until_let_go
from .running import running

PLAIN = {"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


def schema(value: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": value}}}


NESTED: dict[str, Any] = {"type": "object"}
for _ in range(12):
    NESTED = {"type": "object", "properties": {"a": NESTED}, "required": ["a"]}

INVALID: list[dict[str, Any]] = [
    {"structured_outputs": {"regex": "("}},
    {"structured_outputs": {"regex": "[z-a]"}},
    {"structured_outputs": {"regex": "a{5,2}"}},
    {"structured_outputs": {"regex": "(?=a)b"}},
    {"structured_outputs": {"regex": r"(a)\1"}},
    {"structured_outputs": {"regex": "*"}},
    {"structured_outputs": {"json": "{"}},
    {"structured_outputs": {"json": "[]"}},
    {"structured_outputs": {"regex": "a", "choice": ["b"]}},
    schema({"type": "nonsense"}),
    schema({"$ref": "#/nowhere"}),
    schema({"$ref": "https://example.org/schema"}),
    schema({"type": "string", "pattern": "("}),
    schema(False),
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "grammar"}},
]
LARGE: list[dict[str, Any]] = [
    {"structured_outputs": {"regex": "((a{1,1000}){1,1000}){1,1000}"}},
    {"structured_outputs": {"regex": "(" * 5000 + "a" + ")" * 5000}},
    {"structured_outputs": {"regex": "a?" * 2000 + "a" * 2000}},
    {"structured_outputs": {"choice": ["x" * 200 + str(i) for i in range(256)]}},
    schema({"enum": [f"{i}" * 20 for i in range(2000)]}),
    schema(NESTED),
]


@pytest.mark.parametrize("fields", INVALID, ids=range(len(INVALID)))
def test_a_grammar_that_is_none_is_refused(url: str, fields: dict[str, Any]) -> None:
    answer = ask(url, "/v1/completions", {**PLAIN, **fields})
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.filterwarnings("ignore:drafter 'model' failed")  # it follows the grammar too, as far as that goes
@pytest.mark.parametrize("fields", LARGE, ids=range(len(LARGE)))
def test_a_grammar_that_is_large_is_served_or_refused_and_holds_up_nobody(
    url: str, bundled: LLM, fields: dict[str, Any]
) -> None:
    started = time.monotonic()
    answer = ask(url, "/v1/completions", {**PLAIN, **fields})
    assert answer.status in (200, 400), answer.body
    assert time.monotonic() - started < 20
    plain = bundled.generate(PLAIN["prompt"], max_tokens=8, drafters="none").text
    assert ask(url, "/v1/completions", PLAIN).text == plain


@pytest.mark.filterwarnings("ignore:history")
@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_a_store_that_cannot_be_written_is_survived(
    fault: str, bundled: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is lost at a time when requests are answered; they are answered all the same."""
    store = tmp_path / "stores" / "history.npz"
    store.parent.mkdir()
    plain = bundled.generate(PLAIN["prompt"], max_tokens=8, drafters="none").text
    drafters = [f"history:path={store},save_every=1"]
    with LLM.from_target(bundled.target, bundled.tokenizer, info=bundled.info, drafters=drafters) as llm:
        app = create_app(llm, Settings(("m",)))
        with running(app) as url:
            assert ask(url, "/v1/completions", PLAIN).text == plain
            before = held(app)
            if fault == "no folder":
                store.parent.rename(tmp_path / "gone")  # in one step: the server may be writing into it
                store.parent.write_text("in the way")
            else:
                monkeypatch.setattr(os, "replace", full)
            for _ in range(4):
                assert ask(url, "/v1/completions", PLAIN).text == plain
            assert ask(url, "/health").status == 200
            until_let_go(app, before)


def full(*paths: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
