"""The sweep itself: what dies, hangs, differs or changes is told as such."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from sweeping import commands, judge, table
from sweeping.entries import entries
from sweeping.shrink import FIRST_SPECIAL, VOCAB, shrunk


def test_a_tiny_configuration_keeps_its_type_and_its_own_features():
    config = shrunk("gemma3")
    text = config.get_text_config()
    assert (config.model_type, text.hidden_size, text.vocab_size, text.num_hidden_layers) == ("gemma3", 64, VOCAB, 4)
    assert FIRST_SPECIAL <= config.image_token_id < VOCAB
    assert set(text.layer_types) <= {"sliding_attention", "full_attention"}


def test_an_entry_that_dies_or_does_not_end_crashes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "judge", lambda name: os._exit(3))
    assert commands._judged("llama", commands.judge)["why"] == "the process died: exit code 3"
    monkeypatch.setattr(commands, "judge", lambda name: time.sleep(60))
    monkeypatch.setattr(commands, "_LIMIT", 0.2)
    assert commands._judged("llama", commands.judge) == {
        "name": "llama",
        "verdict": "crash",
        "why": "no end after 0.2 s",
    }


def test_what_differs_is_wrong_and_what_raises_crashes(monkeypatch: pytest.MonkeyPatch):
    def differ(loaded: object, count: int) -> None:
        raise AssertionError("token 3 differs")

    def fail(loaded: object, count: int) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(judge, "check", differ)
    found = judge.judge("llama")
    assert (found["verdict"], found["why"]) == ("wrong", "token 3 differs")
    monkeypatch.setattr(judge, "check", fail)
    found = judge.judge("llama")
    assert (found["verdict"], found["why"].split(" (")[0]) == ("crash", "ValueError: no such thing")


def test_a_type_that_transformers_cannot_make_is_not_built(monkeypatch: pytest.MonkeyPatch):
    assert judge.judge("no-such-type")["verdict"] == "not-built"


def test_a_changed_verdict_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(table, "KEPT", tmp_path / "kept.jsonl")
    monkeypatch.setattr(table, "PAGE", tmp_path / "page.md")
    found = {name: {"name": name, "verdict": "exact-native", "why": ""} for name in entries()}
    table.write_page(found)
    assert commands._changed(found) == 0
    found["llama"] = {"name": "llama", "verdict": "wrong", "why": "token 3"}
    assert commands._changed(found) == 1
    assert capsys.readouterr().out.startswith("llama: wrong (token 3), where ")
    table.write_page(found)
    page = (tmp_path / "page.md").read_text()
    assert "| wrong | 1 | llama |" in page
    assert "| llama | wrong | token 3 |" in page


def test_what_the_documents_show_are_all_entries():
    kept = [json.loads(line) for line in table.KEPT.read_text().splitlines()]
    assert sorted(line["name"] for line in kept) == sorted(entries())
    assert not [line["name"] for line in kept if line["verdict"] in ("wrong", "crash")]
