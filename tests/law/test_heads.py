"""The law with heads on a model's hidden states: each kind alone and all together, by kernels and by modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import paceline
from heads.kinds import KINDS as HEADS
from heads.kinds import drafter_of
from law.reference import chi_square, enumerate_outputs
from law.support import KINDS, decode
from paceline.drafters import named
from paceline.engine.engine import Engine
from paceline.engine.request import Drafter, Request
from paceline.model import head_forward
from paceline.pacing import FixedPacer

VOCAB, LENGTH, COUNT = 5, 3, 80
FALSE_ALARM = 1e-6
PROMPTS = [(1, 3), (0, 4, 4, 1, 2, 0, 3)]


@cache
def model() -> LlamaForCausalLM:
    """Five tokens, and opinions about them."""
    torch.manual_seed(1)
    sizes: Any = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, initializer_range=0.4, **sizes)).eval()


@pytest.fixture(scope="module")
def llm() -> Iterator[paceline.LLM]:
    with paceline.load(model(), drafters="none", cache_tokens=2**15) as loaded:
        yield loaded


@pytest.fixture(params=["native", "modules"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "modules":
        monkeypatch.setattr(head_forward, "library", lambda: None)
    return str(request.param)


def drafters_of(llm: paceline.LLM, names: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    for seed, name in enumerate(names):
        found.append(named(drafter_of(name, llm.target.host, seed), [drafter.name for drafter in found]))
    return found


@pytest.mark.parametrize("name", ["block", "eagle", "mtp", "medusa", "all"])
def test_outputs_follow_the_exact_law_with_every_kind_of_head(llm: paceline.LLM, name: str) -> None:
    kind = KINDS["frequency_penalty"]
    expected = enumerate_outputs(kind, logits_of, LENGTH)
    drafters = drafters_of(llm, [*HEADS] if name == "all" else [name])
    first = 1000 * [*HEADS, "all"].index(name)
    requests = [kind.request(VOCAB, LENGTH, seed=first + i, drafters=drafters) for i in range(COUNT)]
    outputs = decoded(llm, requests)
    assert chi_square(outputs, expected) > FALSE_ALARM
    assert sum(request.stats.num_accepted_draft_tokens for request in requests) > 0
    close(drafters)


def test_tokens_are_those_of_plain_decoding_with_every_kind_of_head(llm: paceline.LLM, path: str) -> None:
    """In every kind of sampling, all in one batch; each head alone, and all together also by modules."""
    plain = decoded(llm, requests_of())
    alone = [[name] for name in HEADS] if path == "native" else []
    for names in [*alone, [*HEADS]]:
        drafters = drafters_of(llm, names)
        requests = requests_of(drafters)
        assert decoded(llm, requests) == plain, names
        assert all(any(drafter.name in r.stats.drafters for r in requests) for drafter in drafters), names
        close(drafters)


def requests_of(drafters: Sequence[Drafter] = ()) -> list[Request]:
    return [
        kind.request(VOCAB, 4 + 5 * (i % 3), seed=i, prompt=PROMPTS[i % 2], drafters=drafters)
        for i, kind in enumerate(KINDS.values())
    ]


def decoded(llm: paceline.LLM, requests: Sequence[Request]) -> list[tuple[int, ...]]:
    """Few at once, so that each has room for drafts."""
    return decode(llm.target, requests, engine=Engine(llm.target, FixedPacer(6), max_running=8))


def close(drafters: Sequence[Any]) -> None:
    for drafter in drafters:
        drafter.close()


def logits_of(history: tuple[int, ...]) -> np.ndarray:
    """The row behind a text, by the caller's own model."""
    with torch.inference_mode():
        return np.asarray(model()(input_ids=torch.tensor([history]), use_cache=False).logits[0, -1])
