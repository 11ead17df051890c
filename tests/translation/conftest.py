"""A tiny translator with a tokenizer of letters, saved as a checkpoint and loaded from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import NllbTokenizer

import paceline
from cli.conftest import run
from exactness.translators import VOCAB, build

__all__ = ["run"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-!▁"
LANGUAGES = ["deu_Latn", "eng_Latn", "fra_Latn"]


def tokenizer() -> NllbTokenizer:
    """Letter by letter, in three languages."""
    vocab = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *LETTERS])}
    made = NllbTokenizer(vocab=vocab, merges=[], extra_special_tokens=LANGUAGES, src_lang="deu_Latn")
    assert len(made) < VOCAB
    return made


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose generation settings forbid two tokens."""
    place = tmp_path_factory.mktemp("translator")
    model = build("m2m", pad_token_id=1, decoder_start_token_id=2, eos_token_id=2)
    model.generation_config.bad_words_ids = [[53], [96, 96]]
    model.generation_config.num_beams = 4
    model.save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="package")
def llm(folder: Path) -> Iterator[paceline.LLM]:
    with paceline.load(str(folder), cache_tokens=2048) as loaded:
        yield loaded


Run = Callable[..., object]
