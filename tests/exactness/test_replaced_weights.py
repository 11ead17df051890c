"""Whoever reads the weight of a linear that was laid out anew finds it, and may multiply by it on either side."""

from __future__ import annotations

import gc

import pytest
import torch
import transformers

from exactness.models import _DENSE, VOCAB, from_config
from paceline import LLM
from paceline.model.linears import NativeEmbedding, NativeLinear, OneDNNLinear
from paceline.native.library import library
from paceline.native.ops import PackedWeight
from paceline.native.products import Weights
from paceline.native.program import Program
from paceline.native.recording import Recording

needs_kernels = pytest.mark.skipif(library() is None, reason="no native kernels")


def native(weight: torch.Tensor) -> NativeLinear:
    found = library()
    assert found is not None
    return NativeLinear(PackedWeight(found, weight), None)


LINEARS = {
    "native": native,
    "oneDNN": lambda weight: OneDNNLinear(weight, None, upcast=False),
    "oneDNN in float32": lambda weight: OneDNNLinear(weight, None, upcast=True),
}


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", LINEARS)
def test_a_replaced_weight_reads_as_it_was(kind: str, dtype: torch.dtype):
    weight = torch.randn(37, 21).to(dtype)
    found = LINEARS[kind](weight.clone()).weight
    assert found.dtype == dtype
    assert found.shape == (37, 21)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found.t(), weight.t())
    assert torch.equal(found[3:5].float(), weight[3:5].float())


@needs_kernels
@pytest.mark.parametrize("scale", [None, torch.tensor(3.0)], ids=["plain", "scaled"])
def test_a_replaced_embedding_reads_as_it_was(scale: torch.Tensor | None):
    weight = torch.randn(37, 21)
    embedding = NativeEmbedding(native(weight).packed, scale)
    tokens = torch.tensor([[3, 36, 0]])
    assert torch.equal(torch.nn.functional.embedding(tokens, embedding.weight), embedding(tokens))


@needs_kernels
def test_it_takes_no_memory_that_nobody_uses():
    linear = native(torch.randn(37, 21))
    assert linear.weight.dtype == torch.float32
    values = linear.weight.values()
    assert linear.weight.values() is values
    del values
    gc.collect()
    assert linear.weight._held() is None


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("count", [1, 2, 9, 33])
def test_a_product_with_the_weight_on_the_left_is_native(count: int, dtype: torch.dtype):
    linear, kernels = native(torch.randn(37, 21).to(dtype)), library()
    weights: Weights = {}
    x = torch.zeros(1, count, 21, dtype=dtype)
    with torch.no_grad(), Recording([x], weights=weights) as recording:
        result = linear.weight @ x.transpose(1, 2)
    program = Program(kernels, recording, result)
    assert program.num_segments == 1
    x.copy_(torch.randn(1, count, 21))
    program.run()
    assert torch.equal(program.result.transpose(1, 2), linear(x))  # the very sums of the linear


@needs_kernels
def test_no_constant_is_taken_for_another_at_its_address():
    kernels, weights = library(), {}
    x = torch.randn(3, 8)
    for seed in range(4):  # a matrix that lives as long as its recording: the next one may lie where it lay
        base = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad(), Recording([x], weights=weights) as recording:
            result = x @ (base * 2.0)
        program = Program(kernels, recording, result)
        program.run()
        torch.testing.assert_close(program.result, x @ (base * 2.0), rtol=1e-5, atol=1e-5)
        del program, recording, result
        gc.collect()


@needs_kernels
def test_a_router_that_reads_its_weight_decodes_exactly():
    changes = {"num_experts": 5, "moe_topk": [2, 2], "moe_intermediate_size": [29, 29], "head_dim": 18}
    config = transformers.AutoConfig.for_model("hunyuan_v1_moe", **{**_DENSE, **changes})
    model = from_config(config)
    prompt = [(7 * i + 3) % VOCAB for i in range(70)]
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    with LLM(model, cache_tokens=1000) as llm:
        found = [llm.generate(prompt, max_tokens=8, drafters=d, ignore_eos=True) for d in ("none", "suffix")]
    assert [list(item.token_ids) for item in found] == [expected, expected]
