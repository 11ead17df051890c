"""What `bench pacer` measures: a target ready to decode, and the drafters that a user gets without asking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paceline
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path, draft_model_of
from paceline.bundled.grow import inflate
from paceline.console import progress
from paceline.drafters.base import automatic
from paceline.engine.request import Environment
from paceline.llm import LLM
from paceline.model.loading import parse_device, parse_dtype, read_model

BUNDLED, INFLATED = "bundled", "inflated"


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
def load_subject(name: str, dtype: str, device: str = "auto") -> Iterator[Subject]:
    """`bundled`, `inflated` (the bundled target grown to 134 M parameters, its draft model kept), or any model."""
    is_bundled = name in (BUNDLED, INFLATED, DEFAULT_TARGET)
    draft_model = DEFAULT_DRAFT if is_bundled else draft_model_of(name)
    drafters = automatic(Environment(None, 0, device, draft_model))
    with progress(f"{name}: loading"):
        llm = _load(name, dtype, device, drafters)
    with llm:
        yield Subject(name, llm, tuple(drafters))


def _load(name: str, dtype: str, device: str, drafters: list[str]) -> LLM:
    if name != INFLATED:
        source = DEFAULT_TARGET if name == BUNDLED else name
        return paceline.load(source, dtype=dtype, device=device, drafters=drafters)
    grown: Any = inflate(read_model(DEFAULT_TARGET, parse_dtype(dtype), parse_device(device)))
    return paceline.load(grown, tokenizer=str(bundled_path(DEFAULT_TARGET)), drafters=drafters)
