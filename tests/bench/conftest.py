"""A model that decodes in milliseconds, saved with a tokenizer of single bytes, and a few prompts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from click.testing import Result
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from paceline.bench.cli import app
from paceline.bench.models import random_model

PROMPTS = [("story", "Once upon a time a fox met a fox."), ("list", "1, 2, 3, 1, 2, 3, 1, 2,")]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    random_model("tiny", torch.float32, torch.device("cpu"), scale=0.1).save_pretrained(folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytewise).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = [json.dumps({"category": category, "prompt": text}) for category, text in PROMPTS]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def bench() -> Callable[..., Result]:
    """`paceline bench` in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])
