"""Floats to blocks and back: near, the same for any number of threads, and with nothing lost at odd ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import ModelError
from paceline.formats.blocks import BLOCKS, BlockType
from paceline.formats.dequantize import dequantize
from paceline.formats.rounding import TYPES, quantize

LARGEST_ERROR = {"Q8_0": 0.01, "Q4_0": 0.2, "Q4_K": 0.2, "Q5_K": 0.1, "Q6_K": 0.05}


def drawn(rows: int, k: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block_type", TYPES)
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 5), k=st.integers(1, 600), seed=st.integers(0, 2**31))
def test_values_come_back_near(block_type: BlockType, rows: int, k: int, seed: int) -> None:
    weight = drawn(rows, k, seed)
    missed = (dequantize(quantize(weight, block_type)) - weight).norm()
    assert missed <= LARGEST_ERROR[block_type.name] * weight.norm()


@pytest.mark.parametrize("block_type", TYPES)
def test_zeros_stay_zeros(block_type: BlockType) -> None:
    assert not dequantize(quantize(torch.zeros(2, 300), block_type)).any()


@pytest.mark.parametrize("block_type", TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(block_type: BlockType, value: float) -> None:
    weight = torch.ones(3, BLOCKS[block_type].weights + 1)
    weight[1, -1] = value
    with pytest.raises(ModelError, match="allowed for quantising: finite"):
        quantize(weight, block_type)


@pytest.mark.parametrize("block_type", TYPES)
def test_threads_change_nothing(block_type: BlockType) -> None:
    weight, before = drawn(70, 1000, 1), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(quantize(weight, block_type).data)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
