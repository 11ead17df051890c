"""Faults in what recurrent layers keep are found, in a model that has nothing else and in one that attends besides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from exactness.models import VOCAB
from exactness.subjects import Subject
from paceline.certify import state_faults
from paceline.certify.faults import FaultBench
from paceline.certify.plan import CertifyPlan, cases_for

STATES = {"a tree scanned as a chain", "a forgotten state of the prefix cache"}
PAGES = {"attention in slot order", "a wrong page of the prefix cache", "a sequence known by its first page"}


@pytest.mark.parametrize(("architecture", "absent"), [("mamba", PAGES), ("qwen3.5", set())])
def test_they_are_planted_where_there_are_states(
    architecture: str, absent: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(architecture, torch.float32)
    rng = np.random.default_rng(3)
    prompts = [tuple(int(t) for t in rng.integers(1, VOCAB, length)) for length in (190, 171, 187)]
    plan = CertifyPlan("unused", "float32", "cpu", (), ("unused",), max_tokens=16)
    bench = FaultBench(subject.llm, plan, cases_for(VOCAB, prompts), prompts)
    found = bench.all()
    assert found.keys() >= STATES
    assert not absent & found.keys()
    assert all(found[name]().is_caught for name in STATES)
    monkeypatch.setattr(state_faults._Forgetful, "restore", state_faults.StatePool.restore)  # no fault any more
    assert not found["a forgotten state of the prefix cache"]().is_caught
    subject.llm.close()
