"""Mixture of experts: the same bits in every batch and tree, where a row's neighbours choose other experts."""

from __future__ import annotations

import pytest
import torch

import paceline
from exactness.decoding import RandomTrees, decode
from exactness.models import EXPERTS, build
from exactness.subjects import Subject, job
from paceline.native.library import library

native = pytest.mark.skipif(library() is None, reason="no native kernels")


@native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", EXPERTS)
def test_no_bit_depends_on_neighbours(architecture: str, dtype: torch.dtype):
    subject = Subject(architecture, dtype)
    jobs = [job(1, 1, 9), job(129, 2, 13, temperature=0.7), job(70, 3, 11), job(63, 4, 9, temperature=1.0)]
    for seed, (first, last, budget) in enumerate(((0, 4, 9), (1, 2, 33), (1, 3, 18))):
        some = jobs[first:last]
        drafter = RandomTrees(subject.plain, some, seed, fill=True)
        assert subject.plain.differences(some, decode(subject.target, some, drafter, budget)) == []
    own = sum(p.numel() * p.element_size() for p in subject.model.parameters())
    assert own <= subject.llm.info.weight_bytes < 1.2 * own


@native
def test_logits_are_the_models_own():
    subject = Subject("mixtral")
    tokens = [3, 77, 12, 150, 9, 9, 201]
    ours = subject.llm.generate(tokens, max_tokens=20, temperature=0.0).token_ids
    for length in range(len(ours)):
        logits = subject.own_logits([*tokens, *ours[:length]])[-1]
        assert logits[ours[length]] > logits.max() - 1e-3


def test_without_native_kernels_they_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("paceline.model.inspect.library", lambda: None)
    with pytest.raises(paceline.ModelError, match=r"mixture-of-experts .*num_experts=5"):
        paceline.load(build("mixtral"))
