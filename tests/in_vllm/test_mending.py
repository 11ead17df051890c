"""Faults of vLLM's are mended, once, and where there is nothing to mend nothing happens."""

from __future__ import annotations

import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from paceline.vllm.mending import expanded, mend

TOP_K, EXPAND = "vllm.v1.sample.ops.topk_topp_sampler", "vllm.v1.sample.rejection_sampler"


def apply_top_k_only(logits: Any, k: Any) -> Any:
    """As vLLM has it: the maximum of no rows is an error."""
    return logits.topk(int(k.max()), dim=1).values


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Modules of those names."""
    made = SimpleNamespace(top_k=ModuleType(TOP_K), expand=ModuleType(EXPAND))
    made.top_k.apply_top_k_only = apply_top_k_only
    made.expand.expand_batch_to_tokens = "vLLM's own"
    for module in (made.top_k, made.expand):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def test_top_k_of_no_rows_is_nothing(vllm: SimpleNamespace) -> None:
    none, k = torch.empty(0, 5), torch.empty(0, dtype=torch.int32)
    with pytest.raises(RuntimeError):
        vllm.top_k.apply_top_k_only(none, k)
    mend("cpu")
    mend("cpu")
    assert vllm.top_k.apply_top_k_only(none, k) is none
    rows = torch.rand(2, 5)
    assert torch.equal(vllm.top_k.apply_top_k_only(rows, torch.tensor([2, 1])), rows.topk(2, dim=1).values)


@pytest.mark.parametrize(("device", "is_ours"), [("cpu", True), ("cuda", False)])
def test_values_are_expanded_by_us_on_a_cpu_alone(vllm: SimpleNamespace, device: str, is_ours: bool) -> None:
    mend(device)
    assert vllm.expand.expand_batch_to_tokens is (expanded if is_ours else "vLLM's own")


def test_a_release_without_those_functions_is_left_alone(
    vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    del vllm.top_k.apply_top_k_only, vllm.expand.expand_batch_to_tokens
    mend("cpu")
    assert not hasattr(vllm.top_k, "apply_top_k_only")
    monkeypatch.setitem(sys.modules, TOP_K, None)  # cannot be imported
    mend("cpu")


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32])
def test_each_draft_has_the_value_of_its_request(dtype: torch.dtype) -> None:
    draw = random.Random(3)
    for _ in range(20):
        counts = [draw.choice([0, 0, 1, 2, 7]) for _ in range(draw.randrange(1, 6))]
        values = [draw.choice([0.0, 0.7, 1.0, 40.0]) for _ in counts]
        given = torch.tensor(values).to(dtype)
        ends = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)
        found = expanded(given, ends, sum(counts), replace_from=0, replace_to=1)
        wanted = [value or 1 for value, count in zip(given.tolist(), counts, strict=True) for _ in range(count)]
        assert found.dtype == dtype
        assert found.tolist() == wanted
