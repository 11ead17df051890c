"""Loaded models, shared by all tests here: a load costs a second, because it probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from exactness.subjects import Subject

Subjects = Callable[..., Subject]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Threads are varied in processes of their own, where nothing else depends on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def subjects() -> Iterator[Subjects]:
    """`subjects(architecture, dtype)`: a tiny random model behind a loaded `LLM`."""
    known: dict[tuple[str, torch.dtype], Subject] = {}

    def subject(architecture: str, dtype: torch.dtype = torch.float32) -> Subject:
        if (architecture, dtype) not in known:
            known[architecture, dtype] = Subject(architecture, dtype)
        return known[architecture, dtype]

    yield subject
    for one in known.values():
        one.llm.close()
