"""What `bench pacer` and others measure: a target ready to decode, and the drafters that a user gets without asking."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

import paceline
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path, draft_model_of
from paceline.bundled.grow import Growth, inflate
from paceline.console import progress
from paceline.drafters.base import automatic
from paceline.engine.request import Environment
from paceline.llm import LLM
from paceline.model.loading import parse_device, parse_dtype
from paceline.model.pretrained import read_model

BUNDLED, INFLATED = "bundled", "inflated"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
DRAFT_GROWTH = Growth(512, 4, 16, 8, 1408)  # the bundled draft model comes to 14 million parameters with these


@dataclass(frozen=True)
class SubjectOptions:
    """What `load_subject` takes, for a process that is to load it."""

    model: str
    dtype: str
    device: str
    draft_model: str | None = None


@dataclass(frozen=True)
class Subject:
    """A loaded target under its pacer, by the name it was asked for."""

    name: str
    llm: LLM
    drafters: tuple[str, ...]  # each may draft alone

    @property
    def dtype(self) -> str:
        """The target's dtype."""
        return str(self.llm.target.numerics()["dtype"])


@contextmanager
def load_subject(name: str, dtype: str, device: str = "auto", draft_model: str | None = None) -> Iterator[Subject]:
    """`bundled`, `inflated` (the bundled target grown to 134 M parameters, its draft model kept), or any model.

    Its draft model is the one known for it, another, or `inflated`: the bundled one grown to 14 M.
    """
    with progress(f"{name}: loading"):
        draft = _draft(name, dtype, device, draft_model)
        drafters = automatic(Environment(None, 0, device, draft))
        llm = _load(name, dtype, device, drafters, draft)
    with llm:
        yield Subject(name, llm, tuple(drafters))


def read_stock(name: str, dtype: str, device: str) -> Any:
    """The target's weights as transformers' own model."""
    stock: Any = read_model(_source(name), parse_dtype(dtype), parse_device(device))
    return inflate(stock) if name == INFLATED else stock


def servable(name: str, dtype: str, draft_model: str | None, folder: Path) -> tuple[str, str | None]:
    """What a server of its own process can load: the model, and its draft model; a grown one is written to `folder`."""
    if name != INFLATED:
        return (DEFAULT_TARGET if name == BUNDLED else name), draft_model
    transformers_logging.disable_progress_bar()
    read_stock(name, dtype, "cpu").save_pretrained(folder)
    for file in _TOKENIZER_FILES:
        shutil.copy(Path(tokenizer_of(name)) / file, folder / file)
    return str(folder), draft_model or str(bundled_path(DEFAULT_DRAFT))


def tokenizer_of(name: str) -> str:
    """Where the target's tokenizer is found."""
    return str(bundled_path(_source(name)) or _source(name))


def _source(name: str) -> str:
    return DEFAULT_TARGET if name in (BUNDLED, INFLATED) else name


def _draft(name: str, dtype: str, device: str, draft_model: str | None) -> Any:
    if draft_model == INFLATED:
        return inflate(read_model(DEFAULT_DRAFT, parse_dtype(dtype), parse_device(device)), DRAFT_GROWTH)
    return draft_model or draft_model_of(_source(name))


def _load(name: str, dtype: str, device: str, drafters: list[str], draft: Any) -> LLM:
    options: Any = {"dtype": dtype, "device": device, "drafters": drafters, "draft_model": draft}
    if name != INFLATED:
        return paceline.load(_source(name), **options)
    return paceline.load(read_stock(name, dtype, device), tokenizer=tokenizer_of(name), **options)
