"""Values of blocks, against `gguf`'s and against arithmetic of one number at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from native.blocks import HALVES
from paceline.formats.blocks import BLOCKS, BlockRows, BlockType
from paceline.formats.dequantize import dequantize

gguf = pytest.importorskip("gguf")

OUR_OWN = (BlockType.Q8_F, BlockType.Q4_Z)


def drawn(block_type: BlockType, rows: int, blocks: int, seed: int) -> torch.Tensor:
    """Random bytes whose float16 numbers are finite; subnormal and negative ones are among them."""
    random = np.random.default_rng(seed)
    size = BLOCKS[block_type].num_bytes
    data = random.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    for place in HALVES[block_type]:
        bits = data[:, place : place + 2].copy().view(np.uint16)
        bits[(bits & 0x7C00) == 0x7C00] &= 0xBFFF
        bits[random.random(bits.shape) < 0.2] &= 0x83FF  # subnormal
        data[:, place : place + 2] = bits.view(np.uint8)
    if block_type == BlockType.Q8_F:
        data[:, :4] = random.normal(size=(len(data), 1)).astype(np.float32).view(np.uint8)
    return torch.from_numpy(data.reshape(rows, blocks * size))


@pytest.mark.parametrize("block_type", [kind for kind in BlockType if kind not in OUR_OWN])
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 4), blocks=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_values_are_those_of_gguf(block_type: BlockType, rows: int, blocks: int, seed: int) -> None:
    data = drawn(block_type, rows, blocks, seed)
    wanted = gguf.quants.dequantize(data.numpy(), gguf.GGMLQuantizationType[block_type.name])
    found = BlockRows(block_type, data, blocks * BLOCKS[block_type].weights)
    assert np.array_equal(dequantize(found).numpy(), wanted)
    exact = dequantize(found, torch.float64)
    assert torch.equal(exact.float(), dequantize(found))  # one rounding, of the exact value


@pytest.mark.parametrize("block_type", OUR_OWN)
def test_values_of_our_own_kinds(block_type: BlockType) -> None:
    data = drawn(block_type, 3, 2, 7)
    found = dequantize(BlockRows(block_type, data, 64), torch.float64)
    for row in range(3):
        for k in range(64):
            block = data[row].view(2, -1)[k // 32].numpy()
            if block_type == BlockType.Q8_F:
                wanted = float(block[:4].view(np.float32)[0]) * int(block[4 + k % 32 :][:1].view(np.int8)[0])
            else:
                byte = int(block[4 + k % 16])
                code = byte >> 4 if k % 32 >= 16 else byte & 15
                wanted = float(block[:2].view(np.float16)[0]) * (code - int(block[2]))
            assert found[row, k] == wanted


@pytest.mark.parametrize("block_type", BlockType)
def test_rows_end_within_a_block_and_come_in_parts(block_type: BlockType) -> None:
    width = BLOCKS[block_type].weights
    data = drawn(block_type, 5, 2, 3)
    whole, cut = BlockRows(block_type, data, 2 * width), BlockRows(block_type, data, 2 * width - 5)
    assert torch.equal(dequantize(cut), dequantize(whole)[:, :-5])
    parts = [dequantize(cut, torch.bfloat16, slice(start, start + 2)) for start in range(0, 5, 2)]
    assert torch.equal(torch.cat(parts), dequantize(cut).bfloat16())
    assert dequantize(BlockRows(block_type, data[:0], 2 * width)).shape == (0, 2 * width)


def test_columns_are_input_features_whatever_the_order() -> None:
    data = drawn(BlockType.Q4_0, 2, 1, 1)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    plain = dequantize(BlockRows(BlockType.Q4_0, data, 32))
    weight = dequantize(BlockRows(BlockType.Q4_0, data, 32, order))
    assert torch.equal(weight[:, order], plain)
