"""Floats to blocks and back: near, no worse than simpler searches, the same everywhere, nothing lost at odd ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import ConfigError, ModelError
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.dequantize import dequantize
from paceline.formats.rounding import TYPES, quantize
from paceline.native.library import INSTRUCTION_SETS, VARIABLE, library
from paceline.native.rounding import round_blocks

gguf = pytest.importorskip("gguf")
pytestmark = pytest.mark.skipif(library() is None, reason="no native kernels")

# Relative, in the 2-norm, on normal weights; some 1.5 times what is measured on many of them.
LARGEST_ERROR = {"Q8_0": 0.0075, "Q4_0": 0.13, "Q4_1": 0.11, "Q4_K": 0.11, "Q5_K": 0.055, "Q6_K": 0.026}


def drawn(rows: int, k: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, k, generator=torch.Generator().manual_seed(seed))


def error(rows: BlockRows, weight: torch.Tensor) -> float:
    return float((dequantize(rows) - weight).norm() / weight.norm())


@pytest.mark.parametrize("block_type", TYPES)
def test_values_come_back_near(block_type: BlockType) -> None:
    weight = drawn(64, 1024, 1) * 0.02
    assert error(quantize(weight, block_type), weight) <= LARGEST_ERROR[block_type.name]


@pytest.mark.parametrize("block_type", TYPES)
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), k=st.integers(1, 600), scale=st.integers(-12, 4), seed=st.integers(0, 2**31))
def test_no_weight_is_missed_by_more_than_a_step(
    block_type: BlockType, rows: int, k: int, scale: int, seed: int
) -> None:
    """Whatever the shape and the size: K may end anywhere in a block, and there may be more blocks than lanes."""
    weight = drawn(rows, k, seed) * 2.0**scale
    found = dequantize(quantize(weight, block_type))
    assert found.shape == weight.shape
    steps = 100 if block_type == BlockType.Q8_0 else 24 if block_type == BlockType.Q6_K else 6
    largest = weight.abs().amax() if weight.numel() else 0.0
    assert bool(((found - weight).abs() <= largest / steps + 2.0**-20).all())


@pytest.mark.parametrize("block_type", TYPES)
def test_a_row_does_not_know_its_neighbours(block_type: BlockType) -> None:
    weight = drawn(37, 300, 4)
    whole = quantize(weight, block_type).data
    for row in (0, 20, 36):
        assert torch.equal(quantize(weight[row : row + 1], block_type).data[0], whole[row])


@pytest.mark.parametrize("block_type", TYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_and_turned_floats_give_the_same_blocks(block_type: BlockType, dtype: torch.dtype) -> None:
    weight = drawn(40, 300, 2).to(dtype)
    wanted = quantize(weight.float(), block_type).data
    assert torch.equal(quantize(weight, block_type).data, wanted)
    assert torch.equal(quantize(weight.t().contiguous().t(), block_type).data, wanted)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
def test_gguf_is_not_better(name: str) -> None:
    weight = drawn(64, 512, 3)
    data = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[name])
    theirs = BlockRows(BlockType[name], torch.from_numpy(np.ascontiguousarray(data)), 512)
    assert error(quantize(weight, BlockType[name]), weight) < 0.98 * error(theirs, weight)


@pytest.mark.parametrize("block_type", TYPES)
def test_exact_values_stay_near_themselves(block_type: BlockType) -> None:
    """What blocks stand for already is found again to a tenth of what rounding costs."""
    weight = dequantize(quantize(drawn(32, 512, 6), block_type))
    assert error(quantize(weight, block_type), weight) < 0.3 * LARGEST_ERROR[block_type.name]


@pytest.mark.parametrize("block_type", TYPES)
def test_flat_groups(block_type: BlockType) -> None:
    """All zeros, all alike above or below zero, one weight alone, tiny ones."""
    weight = torch.zeros(5, 512)
    weight[1], weight[2], weight[3, 300], weight[4] = 0.5, -0.5, 0.25, 1e-9
    found = dequantize(quantize(weight, block_type))
    assert not found[0].any()
    assert torch.allclose(found[1:], weight[1:], rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("block_type", TYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 65536.0])
def test_what_no_scale_can_hold_is_refused(block_type: BlockType, value: float) -> None:
    weight = torch.ones(3, BLOCKS[block_type].weights + 1)
    weight[1, -1] = value
    with pytest.raises(ModelError, match="allowed for quantising: finite, up to 65504"):
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


@pytest.mark.parametrize("block_type", TYPES)
@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_instruction_sets_change_nothing(block_type: BlockType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = drawn(9, 700, 5)
    wanted = quantize(weight, block_type).data
    monkeypatch.setenv(VARIABLE, name)
    try:
        kernels = library.__wrapped__()
    except ConfigError:
        pytest.skip(f"this processor has no {name}")
    assert kernels is not None
    found = torch.zeros_like(wanted)
    round_blocks(kernels, found, weight, block_type)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("block_type", [BlockType.Q4_K, BlockType.Q5_K])
def test_a_minimum_that_is_forgotten_is_seen(block_type: BlockType) -> None:
    weight = drawn(8, 512, 8)
    rows = quantize(weight, block_type)
    damaged = rows.data.clone().view(8, 2, -1)
    damaged[:, :, 2:4] = 0  # dmin
    wrong = BlockRows(block_type, damaged.view(8, -1), 512)
    assert error(wrong, weight) > 4 * LARGEST_ERROR[block_type.name]


@pytest.mark.parametrize("block_type", [BlockType.Q4_K, BlockType.Q5_K, BlockType.Q6_K])
def test_two_groups_that_share_a_scale_are_seen(block_type: BlockType) -> None:
    """Groups differ by a factor of eight: with a neighbour's scale one of two would be lost."""
    weight = drawn(8, 512, 9)
    weight.view(8, -1, 2, 32)[:, :, 1] *= 8
    rows = quantize(weight, block_type)
    damaged = rows.data.clone().view(8, 2, -1)
    if block_type == BlockType.Q6_K:
        damaged[:, :, 194:196] = damaged[:, :, 192:194]
    else:
        damaged[:, :, 5] = damaged[:, :, 4]
    wrong = BlockRows(block_type, damaged.view(8, -1), 512)
    assert error(rows, weight) <= LARGEST_ERROR[block_type.name]
    assert error(wrong, weight) > 2 * LARGEST_ERROR[block_type.name]


def test_kinds_that_floats_are_not_rounded_to() -> None:
    with pytest.raises(ValueError, match="Q4_Z; allowed: Q8_0"):
        quantize(torch.ones(1, 32), BlockType.Q4_Z)
    with pytest.raises(ValueError, match=r"\(N, K\) floats"):
        quantize(torch.ones(32), BlockType.Q8_0)
